"""Figures, checked by hand."""

import numpy as np
import pytest

from benchmarks import figures
from bild import RowStats

BASE = np.array([[4.0, 8.0, 4.0], [4.0, 8.0, 8.0], [8.0, 8.0, 8.0]])


def test_speedup_is_the_median_of_the_runs_ratios_of_totals() -> None:
    own = np.array([[1.0, 1.0, 2.0], [2.0, 4.0, 4.0], [8.0, 8.0, 8.0]])
    found = figures.speedup(own, BASE)
    assert found["runs"] == [4.0, 2.0, 1.0]
    assert found["value"] == 2.0
    assert found["low"] <= found["value"] <= found["high"]


def test_a_constant_ratio_has_no_interval() -> None:
    found = figures.speedup(BASE / 3, BASE)
    assert found["low"] == pytest.approx(3)
    assert found["high"] == pytest.approx(3)


def test_the_interval_is_over_inputs_drawn_in_pairs() -> None:
    """One input of two is ten times faster: drawn twice, never or once."""
    found = figures.speedup(np.array([[1.0, 1.0]]), np.array([[1.0, 10.0]]))
    assert (found["low"], found["value"], found["high"]) == (1.0, 5.5, 10.0)


def test_times_per_input() -> None:
    seconds = np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 3.0], [9.0, 2.0, 3.0]])
    found = figures.time_figures(seconds, BASE, tokens=36)
    assert found["median_ms"] == 2000
    assert found["p90_ms"] == pytest.approx(2800)
    assert found["tokens_per_second"] == 3.0


def test_counts_and_rates() -> None:
    row = RowStats(rounds=2, drafted=8, accepted=6, rolled_back=2, fallbacks=1, small_steps=9, large_steps=2, tokens=8)
    sums = figures.counts([row, row])
    assert sums["tokens"] == 16
    assert figures.rates(sums) == {"mean_accepted_length": 4.0, "acceptance": 0.75}
    assert figures.predicted_speedup(sums, 0.5) == pytest.approx(16 / 13)
    nothing = dict.fromkeys(sums, 0)
    assert figures.rates(nothing) == {"mean_accepted_length": None, "acceptance": None}


def test_identical_rows() -> None:
    assert figures.share_identical([[1, 2], [3], [4]], [(1, 2), [3, 1], [4]]) == pytest.approx(2 / 3)
