"""Predictions, each with one assumption less than the one before."""

from __future__ import annotations

import pytest

from pipelines.analysis import leviathan
from pipelines.analysis.lossless import Costs, by_draft_length, predicted
from tests.analysis.test_agreement import positions

EVEN = dict.fromkeys(range(1, 5), 10.0)


def test_where_its_assumptions_hold_the_formula_is_right():
    steps = leviathan.walk([0.8] * 5000, 3, limit=6000)
    costs = Costs(small=2.0, large=EVEN, small_token=2.0, large_token=10.0)
    found = predicted(0.8, 3, 5000, steps, costs)
    assert found["formula"] == pytest.approx(leviathan.speedup(0.8, 3, 0.2))
    assert list(found.values()) == pytest.approx([found["formula"]] * 4, rel=0.01)


def test_each_way_drops_an_assumption():
    # Two rounds: three drafted, one of them stands and one is replaced; then two drafted, which end the text.
    steps = leviathan.StepCounts(5, {4: 1, 3: 1})
    costs = Costs(small=2.0, large={1: 10.0, 2: 11.0, 3: 12.0, 4: 13.0}, small_token=3.0, large_token=14.0)
    found = predicted(0.5, 3, 4, steps, costs)
    assert found["formula"] == pytest.approx(1.875 / 1.6)
    assert found["positions"] == pytest.approx(4 / (5 * 0.2 + 2))
    assert found["widths"] == pytest.approx(4 * 10 / (5 * 2 + 13 + 12))
    assert found["loop"] == pytest.approx(4 * 14 / (5 * 3 + 13 + 12 + 2 * 4))


def test_costs_come_from_ratios_of_one_turn():
    steps = {
        "small_ms": 3.0,
        "c": {"value": 0.2},
        "large": [
            {"width": 1, "ms": 10.0, "over_one": {"value": 1.0}},
            {"width": 2, "ms": 99.0, "over_one": {"value": 1.1}},
        ],
    }
    assert Costs.of(steps, {"small": 4.0, "large": 15.0}) == Costs(2.0, {1: 10.0, 2: 11.0}, 4.0, 15.0)


def test_the_best_length_by_each_way_and_by_the_clock():
    rows = [positions(kept=[1.0, 0.0, 1.0, 1.0, 1.0], overlap=[1.0, 0.0, 1.0, 1.0, 1.0])]
    measured = {
        g: {"latency": {"decode_only": {"speedup": {"value": value}}}} for g, value in ((1, 1.2), (2, 1.4), (3, 1.3))
    }
    costs = Costs(small=1.0, large=EVEN, small_token=1.0, large_token=10.0)
    found = by_draft_length(rows, [1, 2, 3], 9, costs, measured)
    assert found["alpha"] == pytest.approx(0.8)
    assert [point["draft_length"] for point in found["points"]] == [1, 2, 3]
    # Greedy acceptance is certain: each start, what stands and what the large model adds make one step.
    assert [5 / point["predicted_tokens_per_large_step"]["positions"] for point in found["points"]] == [3, 2, 2]
    assert found["best"]["measured"] == 2
    assert found["best"]["formula"] == leviathan.best_draft_length(0.8, 0.1, 3) == 3
    assert found["best"]["positions"] == 2
