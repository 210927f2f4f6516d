"""The swap of a finished model for another: whatever stops it, no mixture of both counts as a checkpoint."""

import errno
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError

from pipelines import export
from pipelines.cli import UserError
from pipelines.files import sole_writer
from pipelines.models import manifest
from pipelines.training import final
from pipelines.training.trainer import Trainer
from pipelines.training.weights import drafting
from tests.training import tiny


class Killed(BaseException):
    """As a SIGKILL, nothing of the program's own handles it."""


def write(out: Path, step: int) -> None:
    model = tiny.new_model()
    with torch.no_grad():
        model.shared.weight.fill_(step)
    final.write_final(out, model, tiny.TOKENIZER, {"README.md": f"after {step} steps"}, {"step": step})


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, allowed: float = math.inf) -> Iterator[list[tuple[str, str]]]:
    """What the block does to the disk, as (function, name of the file); after so many operations it is killed."""
    done: list[tuple[str, str]] = []

    def watch(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def watching(target, *rest, **keywords):
            if len(done) >= allowed:
                raise Killed
            path = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else target
            done.append((name, Path(path).name))
            return real(target, *rest, **keywords)

        return watching

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "rmdir", "fsync"):
            patch.setattr(os, name, watch(name, getattr(os, name)))
        yield done


def test_a_kill_at_any_point_leaves_the_old_model_the_new_one_or_none(tmp_path: Path, monkeypatch) -> None:
    left = []
    for allowed in itertools.count():
        out = tmp_path / str(allowed)
        write(out, 1)
        with watched(monkeypatch, allowed):
            try:
                write(out, 2)
            except Killed:
                pass
            else:
                break
        left.append(manifest.check(out)["step"] if (out / manifest.NAME).exists() else None)
        assert left[-1] is None or (out / "README.md").read_text() == f"after {left[-1]} steps"
        write(out, 3)
        assert manifest.check(out)["step"] == 3
    assert [step for step, _ in itertools.groupby(left)] == [1, None, 2]
    assert len(left) > 10


def test_what_the_disk_keeps_is_in_the_same_order(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    write(out, 1)
    with watched(monkeypatch) as operations:
        write(out, 2)
    gone = operations.index(("unlink", manifest.NAME))
    assert operations[gone + 1] == ("fsync", "run"), "the old manifest is gone for good"
    *_, last = (index for index, (function, _) in enumerate(operations) if function == "replace")
    files = {path.name for path in out.iterdir()} - {manifest.NAME}
    assert {("replace", name) for name in files} <= set(operations[gone + 2 : last])
    assert {("fsync", name) for name in files} <= set(operations[gone + 2 : last])
    assert operations[last + 1] == ("fsync", "run")
    assert manifest.NAME in operations[last][1]


def fail(error: Exception):
    def raise_it(*_, **__):
        raise error

    return raise_it


def torch_to_a_folder(folder: Path) -> None:
    torch.save({}, folder)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (torch_to_a_folder, "inline_container"),  # the file in torch that a full disk is reported from, too
        (fail(RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")), "file write failed"),
        (fail(SafetensorError("I/O error: No space left on device")), "No space left"),
        (fail(OSError(errno.ENOSPC, "No space left on device")), "No space left"),
    ],
)
def test_a_failed_write_is_one_line_and_leaves_nothing(write, told: str, tmp_path: Path) -> None:
    draft = tmp_path / ".draft"
    draft.mkdir()
    line = rf"checkpoint-3 cannot be written \(.*{told}.*\); .*make room"
    with pytest.raises(UserError, match=line), drafting(tmp_path / "checkpoint-3", draft):
        write(draft)
    assert not draft.exists()


@pytest.mark.parametrize("error", [RuntimeError("connection closed by peer"), ValueError("NaN")])
def test_what_is_no_failed_write_stays_what_it_is(error: Exception, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "_save_rng_state", fail(error))
    with pytest.raises(type(error), match=str(error)):
        tiny.run(tmp_path, max_steps=1, evaluate_every=None)
    assert not (tmp_path / ".checkpoint").exists()


def test_a_folder_that_is_held_is_shipped_without_its_lock(tmp_path: Path) -> None:
    source, target = tmp_path / "run", tmp_path / "shipped"
    with sole_writer(source):
        write(source, 1)
        assert (source / ".lock").exists()
        export.main(OmegaConf.create({"from": str(source), "to": str(target), "dtype": "float32"}))
    assert set(manifest.check(source)["files"]) == {path.name for path in target.iterdir()} - {manifest.NAME}
    assert not (target / ".lock").exists()
