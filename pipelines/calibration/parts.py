"""A calibration's parts from its config, everything checked before a model loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset
from omegaconf import DictConfig

from pipelines.calibration.grid import LARGE, Candidate, points
from pipelines.calibration.rows import divided, spent_rows
from pipelines.calibration.run import Wanted
from pipelines.cli import counted
from pipelines.data.task import Task
from pipelines.decoding.config import decoding, instantiated
from pipelines.decoding.decode import Decoding
from pipelines.decoding.grid import possible
from pipelines.decoding.pair import Pair, load_pair
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.command import introduce, settings_of
from pipelines.evaluation.results import policy_label


@dataclass(frozen=True)
class CalibrationParts:
    """What is calibrated, on what, and how."""

    pair: Pair
    task: Task
    dataset: Dataset
    """the rows of the split"""
    points: Sequence[Candidate]
    decoding: Decoding
    settings: Settings
    wanted: Wanted
    spent: int
    """leading rows that have served to choose the checkpoints"""


def assemble(config: DictConfig) -> CalibrationParts:
    """Build everything; says on what and with which models. A point that they cannot decode with is left out by name.

    Raises:
        UserError: whatever the user can mend.
    """
    task, candidates = instantiated(config, "task"), points(config)
    written = decoding(config, task, LARGE.policy)
    wanted = Wanted(risk=instantiated(config, "risk"), max_drop=config.max_drop, delta=config.delta)
    dataset = task.load(config.split, config.limit)
    divided(len(dataset), config.selection_share, config.seed)
    pair = load_pair(config, task)
    introduce(config, task, dataset, pair)
    spent = spent_rows(pair, task, config.split)
    if spent:
        print(
            f"rows   the first {spent:,} have served to choose the checkpoints: they propose, as far as there is room"
        )
    decoder = pair.decoder(written)
    decoder.check(LARGE.policy)
    names = [policy_label(point.policy) for point in candidates]
    fine, reasons = possible(candidates, names, lambda point: decoder.check(point.policy))
    for reason in reasons:
        print(f"left out: {reason}", flush=True)
    print(f"grid   {counted(len(fine), 'point')}")
    return CalibrationParts(pair, task, dataset, fine, written, settings_of(config), wanted, spent)
