"""The p-value of Hoeffding and Bentkus: against sums in whole numbers, and in simulations that a mere mean fails."""

import math
from fractions import Fraction

import numpy as np
import pytest

from pipelines.calibration.bounds import TOLERANCE, least_rows, p_value, upper_bound


def tail(most: int, rows: int, level: Fraction) -> Fraction:
    """P(Binomial(rows, level) <= most), exactly."""
    return sum(
        (math.comb(rows, hits) * level**hits * (1 - level) ** (rows - hits) for hits in range(most + 1)), Fraction(0)
    )


@pytest.mark.parametrize("rows", [10, 100, 500])
def test_without_any_loss_it_is_a_power(rows: int) -> None:
    assert p_value(0.0, rows, 0.05) == pytest.approx(0.95**rows, rel=1e-9)
    assert upper_bound(0.0, rows, 0.1) == pytest.approx(1 - 0.1 ** (1 / rows), abs=2 * TOLERANCE)


@pytest.mark.parametrize(
    ("hits", "rows", "level"), [(3, 100, "1/10"), (9, 200, "1/10"), (40, 500, "1/10"), (45, 500, "1/10"), (4, 9, "1/2")]
)
def test_it_is_the_smaller_of_two_exact_sums(hits: int, rows: int, level: str) -> None:
    fraction = Fraction(level)
    mean, of = hits / rows, float(fraction)
    bentkus = math.e * float(tail(hits, rows, fraction))
    kl = mean * math.log(mean / of) + (1 - mean) * math.log((1 - mean) / (1 - of))
    assert p_value(mean, rows, of) == pytest.approx(min(bentkus, math.exp(-rows * kl)), rel=1e-9)


def test_a_sum_that_is_no_whole_number_is_rounded_upwards() -> None:
    """Losses of positions or scores have such sums; Bentkus' part of the number below would promise too much."""
    mean, rows, level = 3.5 / 100, 100, Fraction("1/10")
    kl = mean * math.log(mean / 0.1) + (1 - mean) * math.log((1 - mean) / 0.9)
    sums = {most: math.e * float(tail(most, rows, level)) for most in (3, 4)}
    assert sums[3] < math.exp(-rows * kl) < sums[4]
    assert p_value(mean, rows, 0.1) == pytest.approx(math.exp(-rows * kl), rel=1e-9)
    assert p_value(36.5 / 500, 500, 0.1) == pytest.approx(math.e * float(tail(37, 500, level)), rel=1e-9)


def test_either_part_can_be_the_smaller() -> None:
    """Bentkus' part near the mean, Hoeffding's far from it; a version with one of them alone is larger somewhere."""
    near, far = p_value(0.02, 1000, 0.03), p_value(0.0, 1000, 0.03)
    assert near < math.exp(-1000 * (0.02 * math.log(2 / 3) + 0.98 * math.log(98 / 97)))
    assert far < math.e * 0.97**1000


def test_a_mean_at_the_level_or_above_says_nothing() -> None:
    assert p_value(0.1, 10_000, 0.1) == 1
    assert p_value(0.3, 10_000, 0.1) == 1
    assert upper_bound(1.0, 50, 0.1) == 1


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.2, 0.7, 0.99])
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.3])
def test_the_bound_is_the_p_value_turned_around(mean: float, delta: float) -> None:
    bound = upper_bound(mean, 300, delta)
    assert mean < bound <= 1
    assert p_value(mean, 300, bound) <= delta
    if bound < 1:
        assert p_value(mean, 300, bound - 1e-6) > delta


def share_below(bounds: np.ndarray, truth: float) -> float:
    return float((bounds < truth).mean())


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("concentrated", [False, True])
def test_it_is_below_the_truth_as_seldom_as_it_says(truth: float, concentrated: bool) -> None:
    """The mean in its place is below the truth far more often: the simulation can tell."""
    delta, rows, draws = 0.1, 200, 800
    generator = np.random.default_rng(0)
    losses = (
        generator.beta(4 * truth, 4 * (1 - truth), size=(draws, rows))
        if concentrated
        else generator.random((draws, rows)) < truth
    )
    means = losses.mean(1)
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / draws)
    assert share_below(np.array([upper_bound(mean, rows, delta) for mean in means]), truth) <= allowed
    assert share_below(means, truth) > 0.3


def test_it_is_not_needlessly_wide() -> None:
    """Against the exact bound of Clopper and Pearson for losses of 0 and 1."""
    from scipy.stats import beta

    exact = float(beta.ppf(0.9, 11, 190))
    assert exact < upper_bound(10 / 200, 200, 0.1) < 1.35 * exact


@pytest.mark.parametrize(("level", "delta"), [(0.05, 0.1), (0.2, 0.1), (0.01, 0.3), (0.5, 0.25), (0.95, 0.1)])
def test_the_fewest_rows_on_which_anything_passes(level: float, delta: float) -> None:
    rows = least_rows(level, delta)
    assert upper_bound(0.0, rows, delta) <= level
    assert rows == 1 or upper_bound(0.0, rows - 1, delta) > level
