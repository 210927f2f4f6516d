"""Which checkpoint a run goes on from, when what lies in its folder is not what it should be."""

import json
from pathlib import Path

import pytest

from pipelines.cli import UserError
from pipelines.models import manifest
from pipelines.training import checkpoints

STATE = {"best_global_step": None}


def write(folder: Path, state: str | None = json.dumps(STATE), **about) -> Path:
    """A sealed folder that passes for a checkpoint of a training, with these changes."""
    folder.mkdir()
    if state is not None:
        (folder / checkpoints.STATE).write_text(state)
    manifest.write(folder, **{"step": int(folder.name.removeprefix(checkpoints.PREFIX)), "identity": {}} | about)
    return folder


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": "8"}, "its manifest.json is not that of a training"),
        ({"step": None}, "its manifest.json is not that of a training"),
        ({"identity": None}, "its manifest.json is not of format 1"),
        ({"state": None}, "its trainer_state.json cannot be read"),
        ({"state": "{"}, "its trainer_state.json cannot be read"),
        ({"state": "[]"}, "its trainer_state.json is not that of a training"),
        ({"state": "{}"}, "its trainer_state.json is not that of a training"),
    ],
)
def test_what_cannot_be_a_checkpoint_is_skipped_with_one_line(changes, told, tmp_path: Path, capsys) -> None:
    write(tmp_path / "checkpoint-4")
    write(tmp_path / "checkpoint-8", **changes)
    assert checkpoints.latest(tmp_path).step == 4
    line = capsys.readouterr().out
    assert line.startswith(f"skipping {tmp_path / 'checkpoint-8'}: {told}")
    assert line.count("\n") == 1


def test_without_an_identity_there_is_nothing_to_compare(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint-4")
    manifest.write(folder, step=4)
    with pytest.raises(UserError, match="none of its 1 checkpoints is complete"):
        checkpoints.latest(tmp_path)


def test_another_process_than_the_first_says_nothing(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    write(tmp_path / "checkpoint-4")
    write(tmp_path / "checkpoint-8", state="{")
    assert checkpoints.latest(tmp_path).step == 4
    assert capsys.readouterr().out == ""


def test_rotation_keeps_the_newest_and_their_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path / f"checkpoint-{step}", json.dumps({"best_global_step": 2}))
    (tmp_path / "checkpoint-4" / checkpoints.STATE).write_text("{}")
    checkpoints.rotate(tmp_path, keep=2)
    assert [folder.name for folder in checkpoints.listed(tmp_path)] == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]


def test_files_of_something_else_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "wandb").mkdir()
    assert checkpoints.resumable(tmp_path, {}, 1) is None
    (tmp_path / "README.md").write_text("about my project")
    with pytest.raises(
        UserError, match=r"holds files, such as README\.md, but no training; give out=FOLDER, a new one"
    ):
        checkpoints.resumable(tmp_path, {}, 1)
