"""Does the promise hold as often as it says? Many calibrations on rows drawn from a pool whose risks are known.

The pool stands for the distribution: rows are drawn from it with replacement, so that the pool's own risk is the truth
of which the promise speaks, exactly. The rows that a draw has left out tell it with an error of their own; what they
say is reported beside it.

Knows arrays of losses and times by point; knows nothing about models or texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import trange

from pipelines.calibration.choice import Choice, choose
from pipelines.calibration.risks import Risk

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All points on all rows."""

    losses: Sequence[np.ndarray]
    """by point, (N, ...), of one risk"""
    milliseconds: Sequence[float]
    lossless: Sequence[bool]

    def __len__(self) -> int:
        return len(self.losses[0])


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How calibrations are repeated."""

    resplits: int
    selection: int
    """rows that propose"""
    test: int
    """rows that test"""
    seed: int


def coverage(pool: Pool, draws: Draws, risk: Risk, max_drop: float, delta: float) -> dict[str, Any]:
    """Repeat a calibration on drawn rows and count how often its promise holds.

    Returns:
        "bound": with the risk's bound as test, as calibrations do; "mean": with the mean itself in its place, which
        promises nothing. Each with "lossy" (re-splits in which a point passed), "held" (re-splits in which the risk of
        the chosen point on the whole pool is within ``max_drop``), "held_out" (the same on the rows that were not
        drawn), shares of all re-splits, "p_value" and "passed" (one-sided binomial test of ``held`` against
        ``1 - delta``), and "speedup" (mean over re-splits, of the chosen point).
    """
    rules = {"bound": lambda losses: risk.bound(losses, delta), "mean": risk.estimate}
    counted = {rule: _repeated(pool, draws, risk, max_drop, of) for rule, of in rules.items()}
    return {
        "risk": type(risk).__name__,
        "title": risk.title,
        "guaranteed": risk.guaranteed,
        "max_drop": max_drop,
        "delta": delta,
        **{rule: _summary(outcomes, delta) for rule, outcomes in counted.items()},
    }


def _repeated(
    pool: Pool, draws: Draws, risk: Risk, max_drop: float, tested: Callable[[np.ndarray], float]
) -> dict[str, np.ndarray]:
    """(resplits,) arrays of what came out; every rule sees the same draws."""
    truth = [risk.estimate(losses) for losses in pool.losses]
    generator = np.random.default_rng(draws.seed)
    outcomes: dict[str, list[float]] = {"lossy": [], "held": [], "held_out": [], "speedup": []}
    for _ in trange(draws.resplits, desc=f"{risk.title}, {max_drop:g}", unit="re-split", leave=False, ncols=100):
        first, second = (generator.integers(len(pool), size=size) for size in (draws.selection, draws.test))
        choice = _choice(pool, first, second, risk, max_drop, tested)
        rest = np.setdiff1d(np.arange(len(pool)), np.concatenate([first, second]))
        outcomes["lossy"].append(len(choice.certified) > 0)
        outcomes["held"].append(truth[choice.chosen] <= max_drop)
        outcomes["held_out"].append(risk.estimate(pool.losses[choice.chosen][rest]) <= max_drop)
        outcomes["speedup"].append(pool.milliseconds[0] / pool.milliseconds[choice.chosen])
    return {name: np.array(values) for name, values in outcomes.items()}


def _choice(
    pool: Pool,
    first: np.ndarray,
    second: np.ndarray,
    risk: Risk,
    max_drop: float,
    tested: Callable[[np.ndarray], float],
) -> Choice:
    proposed = [risk.estimate(losses[first]) for losses in pool.losses]
    return choose(
        proposed, pool.milliseconds, pool.lossless, lambda point: tested(pool.losses[point][second]) <= max_drop
    )


def _summary(outcomes: dict[str, np.ndarray], delta: float) -> dict[str, Any]:
    held = outcomes["held"]
    test = binomtest(int(held.sum()), len(held), 1 - delta, alternative="less")
    return {
        **{name: float(values.mean()) for name, values in outcomes.items()},
        "p_value": float(test.pvalue),
        "passed": bool(test.pvalue >= SIGNIFICANCE),
    }
