"""Which checkpoint a run goes on from, and whether the run in a folder is the one that the user asked for.

Knows folders, manifests and identities; knows nothing about models or the trainer.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cli import UserError
from pipelines.models import manifest
from pipelines.training import processes

PREFIX = "checkpoint-"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint of a run: weights and everything needed to go on."""

    folder: Path
    step: int
    identity: dict[str, Any]
    state: dict[str, Any]
    """transformers' TrainerState"""


def resumable(out: Path, identity: dict[str, Any], max_steps: int, *, whole: bool = True) -> Checkpoint | None:
    """The checkpoint that a run with this identity goes on from; None = there is none, start at the beginning.

    Args:
        whole: False while ``identity`` lacks what is not known yet: then only the keys that it has are compared.

    Raises:
        UserError: ``out`` holds another run, or one that is further than ``max_steps``, or no usable checkpoint.
    """
    checkpoint = latest(out)
    if checkpoint is None:
        _refuse_bare(out, identity, whole)
        return None
    refuse_other(out, checkpoint.identity, identity, whole)
    if checkpoint.step > max_steps:
        raise UserError(
            f"{out} has been trained for {checkpoint.step} steps already, train.max_steps={max_steps} is less: "
            "raise it, or give out=FOLDER for a new run"
        )
    return checkpoint


def latest(out: Path) -> Checkpoint | None:
    """The complete checkpoint with the most steps; prints one line for each newer one that is not.

    Raises:
        UserError: there are checkpoints and none is complete: starting anew must be the user's decision.
    """
    broken = []
    for folder in reversed(listed(out)):
        try:
            checkpoint = _open(folder)
        except manifest.IncompleteError as error:
            broken.append(folder)
            processes.say(f"skipping {folder}: {error}")
        else:
            return checkpoint
    if broken:
        raise UserError(
            f"{out}: none of its {len(broken)} checkpoints is complete, so the run cannot go on; "
            "delete the folder to start anew, or give another out=FOLDER"
        )
    return None


def listed(out: Path) -> list[Path]:
    """Checkpoint folders, complete or not, by rising step."""
    steps = {}
    for folder in out.glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX)
        if folder.is_dir() and number.isdecimal():
            steps[int(number)] = folder
    return [steps[step] for step in sorted(steps)]


def refuse_other(out: Path, there: dict[str, Any], asked: dict[str, Any], whole: bool) -> None:
    """Raise ``UserError`` that names every key in which the run in ``out`` is not the one that was asked for.

    Args:
        whole: False if keys that ``asked`` lacks are to be left alone.
    """
    compared = there if whole else {key: value for key, value in there.items() if key in asked}
    differing = manifest.differences(compared, asked)
    if differing:
        raise UserError(
            f"{out} holds another run: {'; '.join(differing)}. Give the old settings to go on with it, "
            "out=FOLDER for a new run, or delete the folder"
        )


def rotate(out: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and those that one of them calls the best so far."""
    folders = listed(out)
    kept = folders[-keep:]
    best = {_best_step(folder) for folder in kept}
    for folder in folders[:-keep]:
        if int(folder.name.removeprefix(PREFIX)) not in best:
            # The manifest goes first: a half-deleted folder must not look complete.
            (folder / manifest.NAME).unlink(missing_ok=True)
            shutil.rmtree(folder)


def _refuse_bare(out: Path, identity: dict[str, Any], whole: bool) -> None:
    """A finished model without its checkpoints, or other files, would be overwritten by a new run."""
    remedy = "give out=FOLDER for a new run, or delete the folder"
    if not (out / manifest.NAME).exists():
        strangers = sorted(path.name for path in out.glob("[!.]*") if path.is_file())
        if strangers:
            raise UserError(f"{out} holds files, such as {strangers[0]}, but no training; give out=FOLDER, a new one")
        return
    try:
        there = manifest.read(out)
    except manifest.IncompleteError as error:
        raise UserError(f"{out} holds a damaged model ({error}) and no checkpoints to make it from; {remedy}") from None
    refuse_other(out, there.get("identity", {}), identity, whole)
    raise UserError(
        f"{out} holds a finished model but none of its checkpoints, so it can be used but not trained on; {remedy}"
    )


def _open(folder: Path) -> Checkpoint:
    about = manifest.check(folder)
    step, identity = about.get("step"), about.get("identity")
    if not isinstance(step, int) or identity is None:
        raise manifest.IncompleteError(f"its {manifest.NAME} is not that of a training")
    return Checkpoint(folder, step, identity, _state(folder))


def _state(folder: Path) -> dict[str, Any]:
    """Raises ``manifest.IncompleteError`` unless there is a trainer's state that can be read."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise manifest.IncompleteError(f"its {STATE} cannot be read ({error})") from None
    if not isinstance(state, dict) or "best_global_step" not in state:
        raise manifest.IncompleteError(f"its {STATE} is not that of a training")
    return state


def _best_step(folder: Path) -> int | None:
    try:
        return _state(folder)["best_global_step"]
    except manifest.IncompleteError:
        return None
