"""What rounding changes is counted: choices beside float32's, lossless texts beside the large model's."""

import json
from pathlib import Path

import pytest
import torch

import bild
from benchmarks import rounding
from benchmarks.methods import pad
from benchmarks.options import rounding_parser
from benchmarks.own import BildMethod
from benchmarks.pair import Pair, load
from tests.benchmarks.conftest import PAIR
from tests.benchmarks.test_latency import undescribed

QUICK = [*PAIR, "--limit", "6", "--target", "target", "--batch-sizes", "4", "1", "--bandwidth-bytes", "1000000"]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load(rounding_parser().parse_args(QUICK))


def test_a_result_is_described_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounding.main([*QUICK, "--out", str(tmp_path / "rounding.json")])
    content = json.loads((tmp_path / "rounding.json").read_text(encoding="utf-8"))
    assert undescribed(content) == set()
    assert content["provenance"]["command"].startswith("python -m benchmarks.rounding")
    static, int8 = content["engines"]
    assert (static["engine"], int8["engine"]) == ("static", "static+int8")
    for role in ("large", "small"):
        assert static["same_choice"][role]["same"] == static["same_choice"][role]["positions"] > 40
        assert 0.8 < int8["same_choice"][role]["same"] / int8["same_choice"][role]["positions"] <= 1
        assert int8["bleu"][role] > 20
    assert static["lossless"] == [{"batch_size": 1, "differ": 0, "margins": []}]
    table = capsys.readouterr().out
    assert "lossless texts unlike the large model's, one by one" in table
    assert "medians" not in table


def test_choices_are_transformers_own(pair: Pair) -> None:
    batch = pair.batches(3)[0]
    rows = BildMethod("", bild.LargeOnly(), "static", pair.large, None).decode(batch, 20).tokens
    rows[1] = [7, 8, 9]  # also of what the model would not say
    before, _ = pad([[0, *row[:-1]] for row in rows], 0, torch.device("cpu"))
    with torch.no_grad():
        logits = pair.large(input_ids=batch[0], attention_mask=batch[1], decoder_input_ids=before).logits
    expected = [best[: len(row)] for best, row in zip(logits.argmax(-1).tolist(), rows, strict=True)]
    assert rounding.choices(pair.large, "static", batch, rows) == expected
    assert expected[0] == rows[0]
    assert expected[1] != rows[1]


def test_texts_that_differ_are_counted_with_their_margins(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "EXACT", bild.SmallOnly())
    (entry,) = rounding.measure(pair, ["static"], [4, 2], rounding_parser().parse_args(QUICK))
    (found,) = entry["lossless"]
    assert found["batch_size"] == 2
    assert 0 < found["differ"] == len(found["margins"]) <= 6
    assert all(margin > 0 for margin in found["margins"])
