"""Weights & Biases: off, offline or online, never a question at the terminal, and a run of its own for each training.

Knows its environment variables; knows nothing about what is tracked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.cli import UserError

# What transformers is to report to.
REPORTERS: dict[str, list[str]] = {"disabled": [], "offline": ["wandb"], "online": ["wandb"]}


@contextmanager
def tracked(mode: str, out: Path) -> Iterator[None]:
    """What is trained within the block is a run of its own, which ends with it; its files go into ``out``, a folder.

    Raises:
        UserError: "online" without being logged in.
    """
    given = {"WANDB_PROJECT": "bild", "WANDB_NAME": out.name} | dict(os.environ)  # the user's own names go first
    wanted = {"WANDB_MODE": mode}
    if REPORTERS[mode]:
        wanted |= {"WANDB_DIR": str(out), **{name: given[name] for name in ("WANDB_PROJECT", "WANDB_NAME")}}
    with _environment(wanted):
        if mode == "online" and not _logged_in():
            raise UserError("train.wandb=online: not logged in; run `wandb login` first, or use train.wandb=offline")
        yield
        if REPORTERS[mode]:
            _finish()


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Environment variables within the block; what they were comes back."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _logged_in() -> bool:
    import wandb

    return bool(wandb.login(prompt=False))


def _finish() -> None:
    import wandb

    wandb.finish()
    wandb.teardown()  # with it goes what it has kept of the environment, such as the run's name
