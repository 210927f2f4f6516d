"""Killed at any point and started again, a training ends with the very bits of one that was never interrupted."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from pipelines.cli import UserError
from pipelines.models import manifest
from pipelines.training import checkpoints
from pipelines.training.settings import TrainSettings
from tests.training import child, tiny

STEPS = tiny.SETTINGS.max_steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert child.finish(child.start(out)) == 0
    return out


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped in the middle: checkpoints, no finished model."""
    out = tmp_path_factory.mktemp("half") / "run"
    assert child.finish(child.start(out, sabotage="die in a file", max_steps=STEPS)) == -signal.SIGKILL
    assert not manifest.is_complete(out)
    return out


@pytest.fixture
def stopped(half: Path, tmp_path: Path) -> Path:
    """A copy of ``half`` for one test."""
    return Path(shutil.copytree(half, tmp_path / "run"))


def newest(out: Path) -> int:
    folders = checkpoints.listed(out)
    return int(folders[-1].name.removeprefix(checkpoints.PREFIX)) if folders else 0


def assert_same_end(out: Path, whole: Path) -> None:
    assert manifest.is_complete(out)
    assert tiny.weights(out) == tiny.weights(whole)
    last = f"{checkpoints.PREFIX}{STEPS}"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert (out / last / name).read_bytes() == (whole / last / name).read_bytes(), name


def test_five_random_kills(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    started = time.monotonic()
    for step in (0, 3, 6, 9, 12):
        process = child.start(out)
        child.wait_for(lambda step=step: newest(out) >= step, process)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        assert child.finish(process) == -signal.SIGKILL
        assert newest(out) < STEPS
    print("seconds", time.monotonic() - started)
    assert child.finish(child.start(out)) == 0
    assert "resumed from step" in child.printed(out)
    assert_same_end(out, whole)


@pytest.mark.parametrize("sabotage", ["die unsealed", "die in a file", "die before the rename"])
def test_a_kill_inside_a_checkpoint_write(sabotage: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert child.finish(child.start(out, sabotage=sabotage)) == -signal.SIGKILL
    assert (out / ".checkpoint").is_dir()
    assert newest(out) == 6
    assert child.finish(child.start(out)) == 0
    assert "resumed from step 6" in child.printed(out)
    assert_same_end(out, whole)
    assert not (out / ".checkpoint").exists()


def test_a_kill_inside_the_final_write(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny.run(out, max_steps=3, evaluate_every=None)
    assert manifest.is_complete(out)
    assert child.finish(child.start(out, sabotage="die in the final write")) == -signal.SIGKILL
    assert not (out / manifest.NAME).exists(), "old and new files would pass for one checkpoint"
    assert child.finish(child.start(out)) == 0
    assert_same_end(out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(number: int, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = child.start(out, save_every=1000, evaluate_every=1000)
    child.wait_for(lambda: "step 5" in child.printed(out) if out.with_suffix(".log").exists() else False, process)
    os.kill(process.pid, number)
    assert child.finish(process) == 128 + number
    assert 5 <= newest(out) < STEPS
    assert f"saved at step {newest(out)} of {STEPS}" in child.printed(out)
    assert child.finish(child.start(out)) == 0
    assert_same_end(out, whole)


def test_a_signal_during_an_evaluation_saves_and_the_evaluation_is_made_up_for(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = child.start(out, sabotage="slow evaluation")
    child.wait_for(lambda: "evaluating" in child.printed(out) if out.with_suffix(".log").exists() else False, process)
    os.kill(process.pid, signal.SIGTERM)
    assert child.finish(process) == 128 + signal.SIGTERM
    assert newest(out) == tiny.SETTINGS.evaluate_every
    assert child.finish(child.start(out)) == 0
    assert_same_end(out, whole)
    history = [checkpoints.latest(folder).state for folder in (out, whole)]
    assert [s["best_global_step"] for s in history] == [tiny.SETTINGS.evaluate_every] * 2
    first, second = ([entry.get("eval_loss") for entry in s["log_history"]] for s in history)
    assert [loss for loss in first if loss is not None] == [loss for loss in second if loss is not None]


def test_a_full_disk_is_one_line_and_keeps_what_was_there(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert child.finish(child.start(out, sabotage="small disk")) == 2
    error = child.printed(out).splitlines()[-1].rpartition("\r")[2]
    assert error.startswith(f"error: {out / 'checkpoint-8'} cannot be written")
    assert newest(out) == 6
    assert child.finish(child.start(out)) == 0
    assert_same_end(out, whole)


def truncate(folder: Path) -> None:
    os.truncate(folder / "optimizer.pt", 1000)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def lose_a_file(folder: Path) -> None:
    (folder / "rng_state.pth").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / manifest.NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "optimizer.pt has 1000 bytes instead of"),
        (flip_a_bit, "model.safetensors is corrupt"),
        (lose_a_file, "rng_state.pth is missing"),
        (lose_the_manifest, "it has no manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_one_line(damage, told, stopped, capsys) -> None:
    damage(stopped / "checkpoint-6")
    assert checkpoints.latest(stopped).step == 3
    out = capsys.readouterr().out
    assert out.startswith(f"skipping {stopped / 'checkpoint-6'}: {told}")
    assert out.count("\n") == 1


def test_the_good_checkpoint_before_a_damaged_one_leads_to_the_same_end(stopped: Path, whole: Path) -> None:
    truncate(stopped / "checkpoint-6")
    assert child.finish(child.start(stopped)) == 0
    assert "resumed from step 3" in child.printed(stopped)
    assert_same_end(stopped, whole)


def test_without_a_whole_checkpoint_nothing_starts_anew(stopped: Path) -> None:
    for folder in checkpoints.listed(stopped):
        truncate(folder)
    with pytest.raises(UserError, match="none of its 2 checkpoints is complete"):
        tiny.run(stopped)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 4}, "train.batch_size is 8 there and 4 now"),
        ({"accumulation": 1}, "train.accumulation is 2 there and 1 now"),
        ({"learning_rate": 2e-3}, "train.learning_rate is 0.001 there and 0.002 now"),
        ({"schedule": "constant"}, "train.schedule is inverse_sqrt there and constant now"),
        ({"label_smoothing": 0.0}, "train.label_smoothing is 0.1 there and 0.0 now"),
        ({"seed": 8}, "seed is 7 there and 8 now"),
        ({"identity": {"training data": "other"}}, "training data is number words there and other now"),
        ({"model": tiny.new_model(num_layers=2)}, "starting weights is "),
        ({"seed": 8, "batch_size": 4}, "train.batch_size is 8 there and 4 now; seed is 7 there and 8 now"),
    ],
)
def test_another_run_in_the_folder_is_refused_by_name(change, named, half) -> None:
    before = sorted(half.rglob("*"))
    with pytest.raises(UserError, match=named):
        tiny.run(half, **change)
    assert sorted(half.rglob("*")) == before


def test_another_precision_is_another_run(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainSettings, "computes_in_bf16", lambda self: True)
    with pytest.raises(UserError, match=r"train\.bf16 is False there and True now"):
        tiny.run(half)


def test_fewer_steps_than_done_are_refused(half: Path) -> None:
    with pytest.raises(UserError, match=r"trained for 6 steps already, train\.max_steps=5"):
        tiny.run(half, max_steps=5)


def test_a_schedule_that_ends_cannot_be_prolonged(tmp_path: Path) -> None:
    tiny.run(tmp_path, schedule="linear", max_steps=3, evaluate_every=None)
    with pytest.raises(UserError, match=r"train\.max_steps is 3 there and 4 now"):
        tiny.run(tmp_path, schedule="linear", max_steps=4, evaluate_every=None)


def test_cadences_and_more_steps_change_no_weight(stopped: Path, whole: Path) -> None:
    tiny.run(stopped, max_steps=13, log_every=1, evaluate_every=5, save_every=4, evaluate_batch_size=1, keep=3)
    assert [folder.name for folder in checkpoints.listed(stopped)] == [f"checkpoint-{s}" for s in (10, 12, 13)]
    tiny.run(stopped, evaluate_every=None)
    last = f"{checkpoints.PREFIX}{STEPS}"
    assert tiny.weights(stopped / last) == tiny.weights(whole / last)


def test_a_finished_run_has_nothing_to_do(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("[!.]*")}
    summary = tiny.run(whole)
    assert (summary.ended, summary.steps) == ("before", STEPS)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("[!.]*")} == before


def test_a_finished_model_without_its_checkpoints_is_not_overwritten(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*")))
    with pytest.raises(UserError, match="holds a finished model but none of its checkpoints"):
        tiny.run(copy)
    (copy / manifest.NAME).write_text("{")
    with pytest.raises(UserError, match=r"holds a damaged model \(its manifest\.json cannot be read"):
        tiny.run(copy)
    (copy / manifest.NAME).unlink()
    with pytest.raises(UserError, match=r"holds files, such as README\.md, but no training"):
        tiny.run(copy)
    assert tiny.weights(copy) == tiny.weights(whole)


def test_only_weights_and_plain_data_are_read(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    real = torch.load

    def load(*arguments, **keywords):
        loads.append(keywords.get("weights_only"))
        return real(*arguments, **keywords)

    monkeypatch.setattr(torch, "load", load)
    tiny.run(stopped, max_steps=7)
    assert loads
    assert all(only is True for only in loads)
    assert not list(stopped.rglob("training_args.bin"))
    assert not list(stopped.rglob("*.pkl"))
