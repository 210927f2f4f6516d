"""Seeded choices that are the same in every process, on every machine and in every Python version.

Knows nothing about languages. Only ``Random.random`` is used: it is the one method whose sequence Python promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

# Picks one of several right ways to say a thing; the first is the usual one. If all others are "", there are none.
Choose = Callable[..., str]


class Draw:
    """A stream of random choices named by a seed and a purpose, for example a split."""

    def __init__(self, seed: int, purpose: str) -> None:
        # A string seed goes through SHA-512, not through the salted hash().
        self._random = Random(f"{seed}/{purpose}").random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def below(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self._random() * count)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each as likely as the others."""
        return items[int(self._random() * len(items))]

    def weighted(self, items: Sequence[tuple[Item, float]]) -> Item:
        """One of the items, by weights that sum to 1."""
        position = self._random()
        for item, weight in items:
            position -= weight
            if position < 0:
                return item
        return items[-1][0]


def first(*options: str) -> str:
    """The ``Choose`` that always takes the most likely option."""
    return options[0]


def chooser(draw: Draw, usual: float) -> Choose:
    """Options at random: the first with probability ``usual``, else one of the others."""

    def choose(*options: str) -> str:
        others = options[1:]
        return options[0] if not any(others) or draw.chance(usual) else draw.pick(others)

    return choose


@lru_cache(maxsize=1 << 17)
def bucket(*words: str, buckets: int) -> int:
    """A number in [0, buckets) that depends on the words alone (the built-in hash changes from process to process)."""
    digest = hashlib.sha256("\x1f".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "little") % buckets
