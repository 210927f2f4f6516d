"""Prompt lookup: what followed the last tokens where they stood before, in the source or in the text so far.

The idea is Saxena's (Prompt Lookup Decoding, 2023) and that of reference copying (Yang et al., Inference with
Reference, 2023): summaries, edits and answers repeat their inputs. Here a draft is looked up token by token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bild.sources.guess import Guesser, GuessSource


@dataclass(frozen=True, kw_only=True)
class PromptLookup(GuessSource):
    """The next token is the one that followed the longest n-gram that ends the text, where that n-gram stood last.

    An encoder's source comes before the text, and no n-gram reaches from one into the other. A decoder-only model's
    prompt is the beginning of the text. Raises ValueError on values outside the ranges given here.
    """

    max_ngram: int = 3
    """>= ``min_ngram``, tokens of the longest n-gram that is looked up"""
    min_ngram: int = 1
    """>= 1, tokens of the shortest; where it has not been seen either, nothing is drafted"""

    def __post_init__(self) -> None:
        for name in ("max_ngram", "min_ngram"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value} must be a whole number >= 1")
        if self.min_ngram > self.max_ngram:
            raise ValueError(f"min_ngram={self.min_ngram} is more than max_ngram={self.max_ngram}; lower it")

    def begin(self, source: Sequence[int]) -> Guesser:
        return _NGrams(source, range(self.max_ngram, self.min_ngram - 1, -1))


class _NGrams:
    """One row: its text, and what has followed each n-gram of source and text, in their order."""

    def __init__(self, source: Sequence[int], sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        self._text: list[int] = []
        for token in source:
            self.add(token)
        self._text.clear()

    def add(self, token: int) -> None:
        for ngram in self._endings():
            self._followers[ngram].append(token)
        self._text.append(token)

    def drop(self, count: int) -> None:
        for _ in range(count):
            self._text.pop()
            for ngram in self._endings():
                self._followers[ngram].pop()

    def guess(self) -> int | None:
        for ngram in self._endings():
            if followers := self._followers.get(ngram):
                return followers[-1]
        return None

    def _endings(self) -> Iterator[tuple[int, ...]]:
        """The n-grams that end the text, the longest first."""
        return (tuple(self._text[-size:]) for size in self._sizes if size <= len(self._text))
