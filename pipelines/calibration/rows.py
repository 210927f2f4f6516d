"""Which rows propose and which test, and which of them have already chosen the checkpoints.

Knows a split, a seed and what the manifests of checkpoints say; knows nothing about policies or risks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.cli import UserError, counted
from pipelines.data.task import Task, fingerprint
from pipelines.decoding.pair import Pair
from pipelines.models import manifest

VALIDATION = "validation"  # the split by which trainings choose


def divided(n_rows: int, share: float, seed: int, spent: int = 0) -> tuple[list[int], list[int]]:
    """Row indices of the part that proposes and of the part that tests, by chance, each in the split's order.

    Args:
        share: of the rows, that propose.
        spent: leading rows that have served to choose the checkpoints: they propose as far as there is room.

    Raises:
        UserError: a share that leaves one part without a row.
    """
    first = round(n_rows * share) if 0 < share < 1 else 0
    if not 0 < first < n_rows:
        raise UserError(
            f"selection_share={share}: both parts need some of {counted(n_rows, 'row')}; choose a share between 0 and "
            "1, or take more rows"
        )
    order = np.random.default_rng(seed).permutation(n_rows).tolist()
    order.sort(key=lambda row: row >= spent)  # stable: by chance among either kind
    return sorted(order[:first]), sorted(order[first:])


def spent_rows(pair: Pair, task: Task, split: str) -> int:
    """How many leading rows of a split have chosen among the checkpoints of a training that one of the models comes
    from, as far as the manifests beside the weights tell."""
    if split != VALIDATION:
        return 0
    paths = [model.path for model in pair.described.values() if model.path is not None]
    return max((_spent(Path(path), task) for path in paths), default=0)


def spent_words(n_rows: int, tested: int, spent: int, least: int) -> str:
    """What that means for a promise, before the work, and how to have a better one.

    Args:
        tested: rows of the tests.
        least: fewest rows of a test that any point can pass.
    """
    told = f"the first {spent:,} have served to choose the checkpoints: they propose, as far as there is room"
    fresh = n_rows - spent
    if tested <= fresh:
        return told
    remedy = "another split, or rows that no training has looked at (train.evaluate_rows), would spare them"
    if fresh >= least:
        share = math.ceil(1000 * spent / n_rows) / 1000
        remedy = f"selection_share={share:g} would leave the tests to new ones alone"
    return f"{told}; {tested - fresh:,} of them must test, so what is promised is approximate: {remedy}"


def _spent(folder: Path, task: Task) -> int:
    try:
        found = manifest.read(folder)
    except manifest.IncompleteError:
        return 0
    identity = found.get("identity", {})
    looked_at = task.load(VALIDATION, identity.get("validation rows"))
    if found.get("best_step") is None or not _are_rows_of(looked_at, task, identity):
        return 0
    decoded = identity.get("train.evaluate_rows")
    return len(looked_at) if decoded is None else min(decoded, len(looked_at))


def _are_rows_of(rows: Dataset, task: Task, identity: Mapping[str, Any]) -> bool:
    """Whether these are what a training has validated on: rows are what they say, whatever their task was called then.
    An alignment has put the large model's texts in place of the targets; its rows are known by the task's name."""
    if "align.method" in identity:
        return (identity.get("task"), identity.get("task.version")) == (task.name, task.version)
    return fingerprint(rows) == identity.get("validation data")
