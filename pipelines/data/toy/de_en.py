"""The task toy_de_en: German sentences from a small grammar with one of their possible English translations.

Knows splits; the grammar behind it knows nothing about them. The pairs of words that it puts together (adjective and
noun, verb and object, the two parts of a compound) decide which split a sentence belongs to (``toy.splits``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from datasets import Dataset

from pipelines.data.toy import lexicon
from pipelines.data.toy.draw import Draw, chooser, first
from pipelines.data.toy.sampling import Sampler
from pipelines.data.toy.sentences import Sentence, draw_sentence
from pipelines.data.toy.splits import split_of

WORDS = range(6, 26)  # English words of a sentence


@dataclass(frozen=True, kw_only=True)
class ToyDeEn:
    """A seeded generator: rows by split. Cutting a split short leaves its first rows as they are."""

    seed: int = 0
    train: int = 60_000
    validation: int = 500
    test: int = 500
    usual: float = 0.75  # how often a translation takes the usual one of several right words or orders

    def load(self, split: str, columns: tuple[str, str] = ("", ""), limit: int | None = None) -> Dataset:
        """Sentences of a split, German in ``source``, English in ``target``."""
        count = getattr(self, split)
        draw = Draw(self.seed, f"toy_de_en/{split}/english")
        rows = list(islice(sentences(self.seed, split), count if limit is None else min(count, limit)))
        return Dataset.from_dict(
            {"source": [row.german for row in rows], "target": [row.english(chooser(draw, self.usual)) for row in rows]}
        )


def sentences(seed: int, split: str) -> Iterator[Sentence]:
    """Different German sentences of a split, without end."""
    sampler = Sampler(Draw(seed, f"toy_de_en/{split}"), lexicon.load())
    seen = set()
    while True:
        sentence = draw_sentence(sampler)
        if split_of(sampler.pairs) != split or sentence.german in seen:
            continue
        if len(sentence.english(first).split()) in WORDS:
            seen.add(sentence.german)
            yield sentence
