"""The pool of a coverage study: every point on all rows of some splits, then calibrations on rows drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from pipelines.calibration.coverage import Draws, Pool, coverage
from pipelines.calibration.parts import CalibrationParts
from pipelines.calibration.rows import divided
from pipelines.calibration.run import label, measured
from pipelines.calibration.writer import Writer
from pipelines.cli import counted
from pipelines.data.task import fingerprint
from pipelines.evaluation import measures
from pipelines.evaluation.timings import TimingLog


@dataclass(frozen=True)
class Studied:
    """The numbers of a study."""

    content: dict[str, Any]
    """the sections pool, draws, curve and checks"""
    timing_log: TimingLog
    """to be removed once the numbers are safe"""


def study(config: DictConfig, parts: CalibrationParts) -> Studied:
    """Decode the pool, or read what is kept of it, and repeat calibrations of the size that ``split`` allows."""
    assert parts.study is not None
    seed, points, wanted, rows = config.seed, parts.points, parts.study.wanted, parts.study.rows
    first, second = divided(len(parts.dataset), config.selection_share, seed)
    for one in wanted:
        if len(second) < (least := one.least_rows()):
            print(
                f"{type(one.risk).__name__}, {one.max_drop:g}: no point can pass with {counted(len(second), 'row')} "
                f"for the tests, it takes {least:,}; this check will be vacuous",
                flush=True,
            )
    draws = Draws(resplits=config.coverage.resplits, selection=len(first), test=len(second), seed=seed)
    writer = Writer(parts.pair, parts.task, rows, parts.decoding, parts.settings)
    log = writer.log(points)
    with log.held():
        texts = [writer.written(point.policy, label(points, place)) for place, point in enumerate(points)]
        timings = writer.timed(points, log)
    milliseconds = [float(measures.end_to_end(one).sum()) for one in timings]
    exact = [point.exact(texts[0].tokens, one.tokens) for point, one in zip(points, texts, strict=True)]
    checks = []
    for one in wanted:
        losses = [one.risk.losses(texts[0], written) for written in texts]
        pool = Pool(losses=losses, milliseconds=milliseconds, lossless=exact)
        checks.append(coverage(pool, draws, one.risk, one.max_drop, one.delta))
    risks = {type(one.risk).__name__: one.risk for one in wanted}
    curve = [
        {
            **measured(point, written, timed, is_exact, timings[0], seed),
            "risks": {name: risk.estimate(risk.losses(texts[0], written)) for name, risk in risks.items()},
        }
        for point, written, timed, is_exact in zip(points, texts, timings, exact, strict=True)
    ]
    content = {
        "pool": {"splits": list(config.coverage.splits), "examples": len(rows), "data": fingerprint(rows)},
        "draws": {"resplits": draws.resplits, "selection": draws.selection, "test": draws.test, "seed": seed},
        "run": {"device": parts.pair.device.type, "timed_examples": len(timings[0])},
        "checks": checks,
        "curve": curve,
    }
    return Studied(content, log)
