"""A finished checkpoint, made ready to ship."""

import errno
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from pipelines import export
from pipelines.cli import UserError
from pipelines.models import manifest, shortlist
from pipelines.training.final import write_final
from tests.conf import ROOT, composed
from tests.training import tiny


@pytest.fixture
def finished(tmp_path):
    """A finished checkpoint with what a training leaves beside it."""
    folder = tmp_path / "run"
    texts = {
        "README.md": "a card",
        "align.yaml": "seed: 0",
        "trainer_state.json": '{"epoch": 1,\n "task": "für"}',
        "other.txt": "no",
    }
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
    assert (target / "trainer_state.json").read_text(encoding="utf-8") == '{"epoch":1,"task":"für"}\n'
    sizes = [(folder / "tokenizer.json").stat().st_size for folder in (target, finished)]
    assert sizes[0] < 0.7 * sizes[1]


def test_after_a_full_disk_the_same_command_goes(finished, tmp_path, monkeypatch):
    target = tmp_path / "new"

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", full)
        with pytest.raises(UserError, match=r"new cannot be written \(.*No space left.*make room on the disk and run"):
            shipped(finished, target)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / ".new.draft").mkdir()  # as a killed run leaves it
    (tmp_path / ".new.draft/other.bin").touch()
    assert manifest.is_complete(shipped(finished, target))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "new"}
    assert not (target / "other.bin").exists()


def test_the_pair_that_ships_takes_less_than_16_mb():
    names = subprocess.check_output(["git", "ls-files", "-z", "checkpoints/pretrained"], cwd=ROOT, text=True)
    files = [ROOT / name for name in names.split("\0") if name]
    assert len(files) == 19
    assert sum(file.stat().st_size for file in files) < 15_950_000
    for size in ("large", "small"):
        assert manifest.is_complete(ROOT / f"checkpoints/pretrained/tiny-{size}")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("from", "nowhere", "from=.*nowhere: there is no such folder"),
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
