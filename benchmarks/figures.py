"""From times and outputs to figures. Knows arrays and counts; knows neither models nor files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bild import RowStats

RESAMPLES = 2000


def time_figures(seconds: np.ndarray, baseline: np.ndarray, tokens: int) -> dict[str, Any]:
    """Time per input, and how many times faster than the baseline.

    ``seconds`` and ``baseline`` are (R, N): runs, inputs. An input's time is its median over the runs.
    """
    per_input = 1000 * np.median(seconds, axis=0)
    return {
        "median_ms": float(np.median(per_input)),
        "p90_ms": float(np.quantile(per_input, 0.9)),
        "tokens_per_second": tokens / float(np.median(seconds.sum(-1))),
        "speedup": speedup(seconds, baseline),
    }


def median_speedup(seconds: np.ndarray, baseline: np.ndarray) -> float:
    """The median over the runs of the ratio of totals; shapes as in ``speedup``."""
    return float(np.median(baseline.sum(-1) / seconds.sum(-1)))


def speedup(seconds: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    """The baseline's time over the method's, paired: the ratio of each run's totals, their median, and its 95 %
    percentile interval over inputs drawn again (R, N)."""
    runs = baseline.sum(-1) / seconds.sum(-1)
    value = median_speedup(seconds, baseline)
    drawn = np.random.default_rng(0).integers(seconds.shape[-1], size=(RESAMPLES, seconds.shape[-1]))
    again = np.median(baseline[:, drawn].sum(-1) / seconds[:, drawn].sum(-1), axis=0)
    low, high = np.quantile(again, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high), "runs": runs.tolist()}


def counts(stats: Sequence[RowStats]) -> dict[str, int]:
    """Sums over rows."""
    names = ("rounds", "drafted", "accepted", "rolled_back", "fallbacks", "small_steps", "large_steps", "tokens")
    return {name: sum(getattr(row, name) for row in stats) for name in names}


def rates(sums: dict[str, int]) -> dict[str, float | None]:
    """Definitions of the field; None where there is nothing to divide by."""
    return {
        "mean_accepted_length": ratio(sums["tokens"], sums["large_steps"]),
        "acceptance": ratio(sums["accepted"], sums["drafted"]),
    }


def predicted_speedup(sums: dict[str, int], cost_ratio: float) -> float:
    """Over the large model alone, from counts alone: ``cost_ratio`` is a small step over a large step, and a pass over
    a draft costs one large step."""
    return sums["tokens"] / (sums["small_steps"] * cost_ratio + sums["large_steps"])


def ratio(numerator: float, denominator: float) -> float | None:
    """None instead of a division by zero."""
    return None if denominator == 0 else numerator / denominator


def share_identical(rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Share of rows that are token for token the same."""
    return sum(list(row) == list(other) for row, other in zip(rows, others, strict=True)) / len(rows)
