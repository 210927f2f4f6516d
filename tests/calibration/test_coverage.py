"""The study itself: right rules pass it, wrong ones fail."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from pipelines.calibration.coverage import Draws, Pool, _summary, coverage
from pipelines.calibration.risks import Disagreement

DRAWS = Draws(resplits=300, selection=100, test=150, seed=0)
TRUTHS = (0.0, 0.04, 0.11, 0.13, 0.3)


@dataclass(frozen=True)
class Careless(Disagreement):
    """A bound that is none."""

    def bound(self, losses: np.ndarray, delta: float) -> float:
        return self.estimate(losses)


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Points of known risk, 1,000 rows; two of them break a bound of 0.1 by little. Faster means worse."""
    generator = np.random.default_rng(1)
    losses = [generator.permutation(np.arange(1000) < 1000 * truth).astype(float) for truth in TRUTHS]
    return Pool(losses=losses, milliseconds=[9.0, 8.0, 7.0, 6.0, 5.0], lossless=[True, False, False, False, False])


def test_a_calibration_holds_and_a_mere_mean_does_not(pool: Pool) -> None:
    found = coverage(pool, DRAWS, Disagreement(), 0.1, 0.1)
    assert found["bound"]["passed"]
    assert found["bound"]["held"] >= 0.9
    assert found["bound"]["lossy"] > 0.5
    assert found["bound"]["speedup"] > 1.05
    assert not found["mean"]["passed"]
    assert found["mean"]["held"] < 0.85
    assert found["mean"]["p_value"] < 0.01


def test_a_bound_that_is_none_fails(pool: Pool) -> None:
    assert not coverage(pool, DRAWS, Careless(), 0.1, 0.1)["bound"]["passed"]


def test_the_truth_is_the_pool_s_and_the_rows_left_out_are_not_drawn(pool: Pool) -> None:
    """With a bound just above a point's risk on the pool, the pool says it holds, the rows left out half the time."""
    found = coverage(pool, DRAWS, Careless(), 0.1101, 0.1)["bound"]
    assert found["held_out"] < found["held"]


def test_every_part_of_a_draw_has_rows_of_its_own() -> None:
    """A row's loss is its number: what was estimated or bounded tells which rows it was."""
    seen: list[np.ndarray] = []

    class Watched(Disagreement):
        def estimate(self, losses: np.ndarray) -> float:
            seen.append(losses)
            return super().estimate(losses)

        def bound(self, losses: np.ndarray, delta: float) -> float:
            assert (len(losses), delta) == (300, 0.1)
            return super().bound(losses, delta)

    rows = np.arange(1000) / 1000
    pool = Pool(losses=[np.zeros(1000), rows], milliseconds=[2.0, 1.0], lossless=[True, False])
    draws = Draws(resplits=1, selection=200, test=300, seed=0)
    coverage(pool, draws, Watched(), 0.9, 0.1)
    parts = {len(losses): set(losses.tolist()) for losses in seen if losses.any()}
    assert parts.pop(1000) == set(rows.tolist())
    proposed, tested = parts.pop(200), parts.pop(300)
    [left_out] = parts.values()
    assert left_out == set(rows.tolist()) - proposed - tested
    assert not proposed <= tested


@pytest.mark.parametrize(("held", "passed"), [(270, True), (263, True), (258, False), (240, False)])
def test_a_share_that_chance_explains_at_5_percent_passes(held: int, passed: bool) -> None:
    outcomes = {"held": np.arange(300) < held}
    found = _summary(outcomes, 0.1)
    exact = sum(math.comb(300, hits) * 0.9**hits * 0.1 ** (300 - hits) for hits in range(held + 1))
    assert found["p_value"] == pytest.approx(exact)
    assert found["passed"] == passed == (exact >= 0.05)


def test_a_study_is_repeatable(pool: Pool) -> None:
    few = Draws(resplits=20, selection=50, test=50, seed=3)
    assert coverage(pool, few, Disagreement(), 0.1, 0.1) == coverage(pool, few, Disagreement(), 0.1, 0.1)
