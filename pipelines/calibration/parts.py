"""A calibration's parts from its config, everything checked before a model loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets
from omegaconf import DictConfig, ListConfig

from pipelines.calibration.grid import LARGE, Candidate, points
from pipelines.calibration.rows import divided, spent_rows, spent_words
from pipelines.calibration.run import Wanted
from pipelines.cli import UserError, counted
from pipelines.data.task import Task
from pipelines.decoding.config import decoding, instantiated
from pipelines.decoding.decode import Decoding
from pipelines.decoding.grid import grouped, possible
from pipelines.decoding.pair import Pair, load_pair
from pipelines.evaluation import provenance
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.command import introduce, settings_of
from pipelines.evaluation.results import policy_label


@dataclass(frozen=True)
class Study:
    """What a coverage study looks at."""

    wanted: Sequence[Wanted]
    rows: Dataset
    """of all of its splits, from which calibrations draw theirs"""


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
    left_out: Sequence[str]
    """the candidates that the pair cannot decode with, by name, and why"""
    provenance: dict[str, Any]
    """of the code that does the work"""
    study: Study | None
    """None for a calibration"""


def assemble(config: DictConfig) -> CalibrationParts:
    """Build everything; says on what and with which models. A point that they cannot decode with is left out by name.

    Raises:
        UserError: whatever the user can mend.
    """
    made = provenance.collect(config)
    task, candidates = instantiated(config, "task"), points(config)
    written = decoding(config, task, LARGE.policy)
    wanted = Wanted(risk=instantiated(config, "risk"), max_drop=config.max_drop, delta=config.delta)
    dataset = task.load(config.split, config.limit)
    _, tested = divided(len(dataset), config.selection_share, config.seed)
    study = None if config.coverage.resplits is None else _study(config, task)
    if study is None and not all(point.policy.lossless for point in candidates):
        check_enough(len(tested), wanted)
    pair = load_pair(config, task)
    introduce(config, task, dataset, pair)
    spent = min(spent_rows(pair, task, config.split), len(dataset))
    if spent:
        print(f"rows   {spent_words(len(dataset), len(tested), spent, wanted.least_rows())}")
    decoder = pair.decoder(written)
    decoder.check(LARGE.policy)
    names = [policy_label(point.policy) for point in candidates]
    fine, reasons = possible(candidates, names, lambda point: decoder.check(point.policy))
    for line in grouped(reasons):
        print(f"left out: {line}", flush=True)
    print(f"grid   {counted(len(fine), 'point')}")
    return CalibrationParts(
        pair, task, dataset, fine, written, settings_of(config), wanted, spent, reasons, made, study
    )


def _study(config: DictConfig, task: Task) -> Study:
    """Raises ``UserError`` on what a study cannot look at."""
    splits, checks = config.coverage.splits, config.coverage.checks
    for key, value in (("splits", splits), ("checks", checks)):
        if not isinstance(value, ListConfig) or len(value) == 0:
            raise UserError(f"coverage.{key}={value}: must be a list, of one at least; conf/calibrate.yaml shows one")
    for place, one in enumerate(checks):
        parts = {"risk": DictConfig, "max_drops": ListConfig}
        if not isinstance(one, DictConfig) or not all(isinstance(one.get(key), kind) for key, kind in parts.items()):
            raise UserError(
                f"coverage.checks[{place}]={one}: write "
                "{risk: {_target_: pipelines.calibration.risks.Disagreement}, max_drops: [0.05, 0.1]}"
            )
    wanted = [
        Wanted(risk=instantiated(one, "risk"), max_drop=max_drop, delta=config.delta)
        for one in checks
        for max_drop in one.max_drops
    ]
    return Study(wanted, concatenate_datasets([task.load(split, config.limit) for split in splits]))


def check_enough(rows: int, wanted: Wanted) -> None:
    """Raise ``UserError`` where no point can pass its test on so many rows, known before anything is decoded."""
    if rows < (least := wanted.least_rows()):
        raise UserError(
            f"max_drop={wanted.max_drop:g} delta={wanted.delta:g}: {counted(rows, 'row')} for the tests, and even a "
            f"point that loses nothing passes with {least:,} or more only; take more rows (limit=null, a longer "
            "split), a smaller selection_share, or a larger max_drop or delta"
        )
