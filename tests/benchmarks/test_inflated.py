"""An inflated model on disk writes what the model that it was made of writes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import bild
from benchmarks import inflated
from benchmarks.shapes import shape_of
from tests.benchmarks.conftest import ROOT

SMALL = str(ROOT / "checkpoints/pretrained/tiny-small")
SIZES = {"d_model": 160, "d_kv": 32, "d_ff": 640, "num_heads": 6, "num_layers": 2, "vocab_size": 2304}
SHAPE = "t5:" + ",".join(f"{name}={size}" for name, size in SIZES.items())


def test_the_written_model_is_the_inflated_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "big"
    inflated.main(["--model", SMALL, "--shape", SHAPE, "--out", str(out)])
    assert capsys.readouterr().out.startswith(f"wrote {out}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    big, small = (AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (out, SMALL))
    assert shape_of(big)["d_model"] == 160
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == 2304
    said = "Der Hund schläft."
    assert tokenizer(said).input_ids == AutoTokenizer.from_pretrained(SMALL)(said).input_ids
    batch = tokenizer(["Der Hund schläft.", "Gestern hat sie den Brief gelesen."], return_tensors="pt", padding=True)
    texts = [bild.generate(model, None, **batch, policy=bild.LargeOnly()).sequences.tolist() for model in (big, small)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "nowhere", "--shape", "t5-small"], "no tokenizer.json"),
        (["--model", SMALL, "--shape", "t5-huge"], "t5-huge"),
        (["--model", SMALL, "--shape", SHAPE.replace("160", "8")], "less than the model's"),
        (["--model", SMALL, "--shape", "t5-small", "--out", "."], "exists already"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit:
        inflated.main([*(["--out", str(tmp_path / "out")] if "--out" not in arguments else []), *arguments])
    assert exit.value.code == 2
    assert told in capsys.readouterr().err
