"""One calibration: every point on one part of the rows, the fastest that may hold on the other, and what is promised.

Knows a loaded pair, rows and points; knows nothing about Hydra or about where the outcome is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.calibration.choice import Choice, choose
from pipelines.calibration.grid import Candidate
from pipelines.calibration.promise import promise
from pipelines.calibration.risks import MethodTexts, Risk
from pipelines.calibration.rows import divided
from pipelines.calibration.writer import Writer
from pipelines.cli import UserError
from pipelines.data.task import Task, fingerprint
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import Pair
from pipelines.decoding.scoring import quality
from pipelines.evaluation import measures, results
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.timings import Timing, TimingLog
from pipelines.files import finite


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be promised."""

    risk: Risk
    max_drop: float
    """in the risk's own units"""
    delta: float
    """probability that the promise does not hold"""

    def __post_init__(self) -> None:
        if not 0 < self.delta < 0.5:
            raise UserError(f"delta={self.delta}: must be a probability above 0 and below 0.5, such as 0.1")
        if not 0 < self.max_drop < self.risk.limit:
            raise UserError(f"max_drop={self.max_drop}: must be above 0 and below {self.risk.limit:g} for this risk")

    def least_rows(self) -> int:
        """The fewest rows of a test that any point can pass."""
        return self.risk.least_rows(self.max_drop, self.delta)


@dataclass(frozen=True)
class Calibrated:
    """The numbers of a calibration."""

    content: dict[str, Any]
    """the sections bild, policy, label, promise, speed, split, run and curve"""
    timing_logs: list[TimingLog]
    """what lets a killed run continue; to be removed once the numbers are safe"""


@dataclass(frozen=True)
class Part:
    """Some rows of a split."""

    rows: list[int]
    dataset: Dataset
    writer: Writer

    def described(self) -> dict[str, Any]:
        """For the record."""
        return {"examples": len(self.rows), "data": fingerprint(self.dataset), "rows": self.rows}


def calibrate(
    pair: Pair,
    task: Task,
    dataset: Dataset,
    points: Sequence[Candidate],
    decoding: Decoding,
    settings: Settings,
    wanted: Wanted,
    selection_share: float,
    spent: int,
) -> Calibrated:
    """Find the fastest point that keeps within what is wanted.

    Args:
        points: the candidates, the large model alone first.
        selection_share: of the rows, on which risks and times are estimated; the tests see the others alone.
        spent: leading rows that have served to choose the checkpoints (``rows.spent_rows``).
    """
    parts = [
        Part(rows, dataset.select(rows), Writer(pair, task, dataset.select(rows), decoding, settings))
        for rows in divided(len(dataset), selection_share, decoding.seed, spent)
    ]
    selection, test = parts
    log = selection.writer.log(points)
    with log.held():
        texts = [selection.writer.written(point.policy, label(points, place)) for place, point in enumerate(points)]
        proposed = [wanted.risk.losses(texts[0], written) for written in texts]
        exact = [point.exact(texts[0].tokens, one.tokens) for point, one in zip(points, texts, strict=True)]
        timings = selection.writer.timed(points, log)
        large = test.writer.written(points[0].policy, label(points, 0))
        tests: dict[int, dict[str, Any]] = {}

        def passes(place: int) -> bool:
            losses = wanted.risk.losses(large, test.writer.written(points[place].policy, label(points, place)))
            tests[place] = _tested(losses, wanted)
            return tests[place]["passed"]

        choice = choose(
            [wanted.risk.estimate(losses) for losses in proposed],
            [float(measures.end_to_end(one).sum()) for one in timings],
            exact,
            passes,
        )
    winner = points[choice.chosen]
    again = test.writer.log([points[0], winner])
    with again.held():
        speed = _speed(*test.writer.timed([points[0], winner], again), decoding.seed)
    not_fresh = sum(row < spent for row in test.rows)
    content = {
        "bild": finite(winner.node),
        "policy": results.policy_fields(winner.policy),
        "label": results.policy_label(winner.policy),
        "promise": promise(wanted.risk, wanted.max_drop, wanted.delta, choice, tests, len(test.rows), not_fresh),
        "speed": speed,
        "split": {
            "seed": decoding.seed,
            "spent": spent,
            "selection": selection.described(),
            "test": test.described(),
        },
        "run": selection.writer.bench.described(timings, timings[0]),
        "curve": _curve(points, texts, proposed, timings, exact, wanted, choice, tests, decoding.seed),
    }
    return Calibrated(content, [log, again])


def label(points: Sequence[Candidate], place: int) -> str:
    """Of a progress bar."""
    return f"{place + 1}/{len(points)} {results.policy_label(points[place].policy)}"


def measured(
    point: Candidate, written: MethodTexts, timings: Sequence[Timing], exact: bool, large: Sequence[Timing], seed: int
) -> dict[str, Any]:
    """What is known of a point whatever the risk: what it is, how good, how fast."""
    ours, theirs = measures.end_to_end(timings), measures.end_to_end(large)
    return {
        "label": results.policy_label(point.policy),
        "bild": finite(point.node),
        "lossless": exact,
        "score": quality(written.metric, written.statistics).headline,
        "mean_ms": float(ours.mean()),
        "speedup": measures.speedup(theirs, ours, seed),
    }


def _speed(large: Sequence[Timing], winner: Sequence[Timing], seed: int) -> dict[str, Any]:
    """On rows of the tests, whose times have chosen nothing: the fastest of many is always a little lucky."""
    ours, theirs = measures.end_to_end(winner), measures.end_to_end(large)
    return {"examples": len(ours), "mean_ms": float(ours.mean()), "speedup": measures.speedup(theirs, ours, seed)}


def _tested(losses: np.ndarray, wanted: Wanted) -> dict[str, Any]:
    """One test: the risk on its rows, and whether its bound is within what is wanted."""
    bound = wanted.risk.bound(losses, wanted.delta)
    return {"risk": wanted.risk.estimate(losses), "bound": bound, "passed": bound <= wanted.max_drop}


def _curve(
    points: Sequence[Candidate],
    texts: Sequence[MethodTexts],
    proposed: Sequence[np.ndarray],
    timings: Sequence[Sequence[Timing]],
    exact: Sequence[bool],
    wanted: Wanted,
    choice: Choice,
    tests: dict[int, dict[str, Any]],
    seed: int,
) -> list[dict[str, Any]]:
    """Every point: risk and time on the rows that propose, and its test if it had one."""
    return [
        {
            **measured(point, texts[place], timings[place], exact[place], timings[0], seed),
            "risk": wanted.risk.estimate(proposed[place]),
            "place_in_order": choice.order.index(place) + 1 if place in choice.order else None,
            "test": tests.get(place),
            "chosen": place == choice.chosen,
        }
        for place, point in enumerate(points)
    ]
