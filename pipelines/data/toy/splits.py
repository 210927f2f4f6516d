"""Which split a generated text belongs to, by the pairs of words in it.

Knows pairs and splits; knows nothing about the grammars that make them. A pair belongs to one split by its hash. A test
text has at least one pair of test and none of validation, a training text has only training pairs. So no text (a
sentence of toy_de_en, a whole report of toy_reports) is in two splits, and test and validation ask for combinations
that training never showed.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.data.toy.draw import bucket

BUCKETS = 16
HELD_OUT = {0: "test", 1: "validation"}  # the pairs of all other buckets are for training


def split_of(pairs: Iterable[tuple[str, str]]) -> str:
    """The split that may use these pairs together, "" if none may."""
    found = {bucket(*pair, buckets=BUCKETS) for pair in pairs} & HELD_OUT.keys()
    return "train" if not found else HELD_OUT[found.pop()] if len(found) == 1 else ""
