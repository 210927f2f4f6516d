"""Weights & Biases: off, offline or online, and never a question at the terminal.

Knows its environment variables; knows nothing about what is tracked.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.cli import UserError


def reporters(mode: str, out: Path) -> list[str]:
    """What transformers should report to in this mode; W&B's files go into ``out``, which must be there.

    Raises:
        UserError: "online" without being logged in.
    """
    os.environ["WANDB_MODE"] = mode
    if mode == "disabled":
        return []
    if mode == "online" and not _logged_in():
        raise UserError("train.wandb=online: not logged in; run `wandb login` first, or use train.wandb=offline")
    os.environ["WANDB_DIR"] = str(out)
    os.environ.setdefault("WANDB_PROJECT", "bild")
    os.environ.setdefault("WANDB_NAME", out.name)
    return ["wandb"]


def _logged_in() -> bool:
    import wandb

    return bool(wandb.login(prompt=False))
