"""Which point is chosen, and that a point which breaks the bound is accepted as seldom as a single test allows."""

import math

import numpy as np

from pipelines.calibration.choice import choose


def test_only_points_that_nothing_beats_are_tested_safest_first() -> None:
    tested: list[int] = []
    #            large  lossless  a     b (beaten by a)  c     d (slower than lossless)
    risks = [0.0, 0.0, 0.10, 0.15, 0.30, 0.05]
    times = [10.0, 8.0, 5.0, 6.0, 3.0, 9.0]
    lossless = [True, True, False, False, False, False]
    choice = choose(risks, times, lossless, lambda point: tested.append(point) is None)
    assert choice.order == tested == [2, 4]
    assert choice.certified == [2, 4]
    assert choice.chosen == 4


def test_the_first_failure_ends_the_tests() -> None:
    tested: list[int] = []

    def passes(point: int) -> bool:
        tested.append(point)
        return point != 2

    choice = choose([0.0, 0.1, 0.2, 0.3], [9.0, 8.0, 7.0, 6.0], [True, False, False, False], passes)
    assert tested == [1, 2]
    assert choice.certified == [1]
    assert choice.chosen == 1


def test_without_a_certified_point_it_is_the_fastest_lossless_one() -> None:
    choice = choose([0.0, 0.0, 0.1], [9.0, 8.0, 7.0], [True, True, False], lambda _: False)
    assert choice.certified == []
    assert choice.chosen == 1
    slow = choose([0.0, 0.1], [9.0, 9.5], [True, False], lambda _: True)
    assert (slow.order, slow.chosen) == ([], 0)


def test_of_equal_risks_the_fastest_comes_first() -> None:
    assert choose([0.0, 0.1, 0.1], [9.0, 8.0, 7.0], [True, False, False], lambda _: True).order == [2]


def test_family_wise_error() -> None:
    """Thirty points that all break the bound, each test wrong with probability delta: a correction is needed, and the
    order is one. Testing on behind a failure would accept one of them nearly always."""
    delta, points, repeats = 0.1, 30, 3000
    generator = np.random.default_rng(0)
    times = [100.0, *range(points, 0, -1)]
    risks = [0.0, *np.linspace(0.2, 0.3, points)]
    lossless = [True, *[False] * points]
    wrong = 0
    for _ in range(repeats):
        outcomes = generator.random(points + 1) < delta
        wrong += len(choose(risks, times, lossless, lambda point, found=outcomes: bool(found[point])).certified) > 0
    assert wrong / repeats <= delta + 3 * math.sqrt(delta * (1 - delta) / repeats)
    assert wrong / repeats >= delta - 3 * math.sqrt(delta * (1 - delta) / repeats)
