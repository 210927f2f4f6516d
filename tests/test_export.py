"""A finished checkpoint, made ready to ship."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from pipelines import export
from pipelines.cli import UserError
from pipelines.models import manifest, shortlist
from pipelines.training.final import write_final
from tests.conf import composed
from tests.training import tiny


@pytest.fixture
def finished(tmp_path):
    """A finished checkpoint with what a training leaves beside it."""
    folder = tmp_path / "run"
    texts = {"README.md": "a card", "align.yaml": "seed: 0", "trainer_state.json": "{}", "other.txt": "no"}
    write_final(folder, tiny.new_model(), tiny.TOKENIZER, texts, {"step": 7})
    (folder / "checkpoint-7").mkdir()
    shortlist.write(folder, [1, 5], tiny.TOKENIZER, 1)
    return folder


def shipped(source, target, *overrides):
    export.main(composed("export", f"from={source}", f"to={target}", *overrides))
    return target


@pytest.mark.parametrize("dtype", export.DTYPES)
def test_weights_are_cast_and_the_training_state_stays_behind(finished, tmp_path, dtype, capsys):
    target = shipped(finished, tmp_path / "new" / "small", f"dtype={dtype}")
    assert f"MB in {dtype}" in capsys.readouterr().out
    assert manifest.check(target)["step"] == 7
    names = {path.name for path in target.iterdir()}
    assert {"README.md", "align.yaml", "trainer_state.json"} <= names
    assert shortlist.read(target, AutoTokenizer.from_pretrained(target)) == (1, 5)
    assert not {"other.txt", "checkpoint-7"} & names
    ours, theirs = load_file(finished / "model.safetensors"), load_file(target / "model.safetensors")
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        assert torch.equal(weight, ours[name].to(getattr(torch, dtype))), name
    assert AutoTokenizer.from_pretrained(target).get_vocab() == tiny.TOKENIZER.get_vocab()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("from", "nowhere", "from=.*nowhere is no finished checkpoint: it has no manifest"),
        ("from", "outputs", "outputs: this folder holds no model"),
        ("to", "run", "to=.*run exists"),
        ("dtype", "int8", "dtype=int8: choose one of float32"),
    ],
)
def test_what_cannot_be_shipped_is_one_line(finished, tmp_path, key, value, message):
    outputs = tmp_path / "outputs"  # has a manifest, but no model
    outputs.mkdir()
    (outputs / "shard.parquet").write_text("rows")
    manifest.write(outputs)
    chosen = {"from": "run", "to": "new", "dtype": "float32", key: value}
    with pytest.raises(UserError, match=message):
        shipped(tmp_path / chosen["from"], tmp_path / chosen["to"], f"dtype={chosen['dtype']}")
    assert not (tmp_path / "new").exists()
