"""Which point is promised: candidates from one part of the rows, tested on another, in an order known beforehand.

Pareto testing (Laufer-Goldshtein et al., ICLR 2023), a case of Learn then Test (Angelopoulos et al., 2021): the rows of
the tests do not enter the order, every test is at level delta, and the first failure ends it. So the probability that
any point is accepted that breaks the bound is delta at most, however many points there are: before any other such
point is accepted, the first of them in the order must be.

Knows numbers by point; knows nothing about policies or texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Choice:
    """The outcome, as indices of points."""

    order: list[int]
    """of the tests, safest first; every point is faster than those before it and than every lossless one"""
    certified: list[int]
    """the head of ``order`` that passed"""
    chosen: int
    """the fastest certified point; the fastest lossless one where none is certified"""


def choose(
    risks: Sequence[float], milliseconds: Sequence[float], lossless: Sequence[bool], passes: Callable[[int], bool]
) -> Choice:
    """The fastest point that passes its test.

    Args:
        risks, milliseconds: by point, estimated without the rows of the tests.
        lossless: points whose risk is 0 by construction, and was so in ``risks``, at least one; they need no test.
        passes: the test of a point, on rows of its own.
    """
    exact = min((point for point, is_exact in enumerate(lossless) if is_exact), key=lambda point: milliseconds[point])
    fastest, order = milliseconds[exact], []
    for point in sorted(range(len(risks)), key=lambda point: (risks[point], milliseconds[point])):
        # A point that another beats in both has nothing to offer.
        if not lossless[point] and milliseconds[point] < fastest:
            order.append(point)
            fastest = milliseconds[point]
    certified = list(takewhile(passes, order))
    return Choice(order, certified, certified[-1] if certified else exact)
