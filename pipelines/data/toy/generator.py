"""What the built-in tasks share: a grammar's pairs become the rows of a split.

Knows seeds, splits and choices; knows nothing about any grammar.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from datasets import Dataset

from pipelines.cli import UserError, check_whole
from pipelines.data.toy.draw import Choose, Draw, chooser

Pair = tuple[str, Callable[[Choose], str]]  # a source, and what writes one of its right targets


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """A seeded generator: rows by split. Cutting a split short leaves its first rows as they are."""

    seed: int = 0
    train: int
    validation: int = 500
    test: int = 500
    usual: float = 0.75  # how often a text takes the usual one of several right words or orders

    purpose: ClassVar[str]  # names the stream of these choices; the split takes the place of {split}

    def __post_init__(self) -> None:
        check_whole("task.origin.seed", self.seed, least=0)
        for split in ("train", "validation", "test"):
            check_whole(f"task.origin.{split}", getattr(self, split))
        if not isinstance(self.usual, (int, float)) or not 0 <= self.usual <= 1:
            raise UserError(f"task.origin.usual={self.usual}: give a number from 0 to 1")

    @abstractmethod
    def pairs(self, split: str) -> Iterator[Pair]:
        """Different sources of a split with their targets, without end."""

    def load(self, split: str, columns: tuple[str, str] = ("", ""), limit: int | None = None) -> Dataset:
        """The first ``limit`` rows of a split (all if None) as columns ``source`` and ``target``."""
        count = getattr(self, split)
        choose = chooser(Draw(self.seed, self.purpose.format(split=split)), self.usual)
        rows = islice(self.pairs(split), count if limit is None else min(count, limit))
        return Dataset.from_list([{"source": source, "target": write(choose)} for source, write in rows])
