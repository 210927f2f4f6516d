"""The task toy_de_en: German sentences from a small grammar with one of their possible English translations.

Knows splits; the grammar behind it knows nothing about them. The pairs of words that it puts together (adjective and
noun, verb and object, the two parts of a compound) decide which split a sentence belongs to (``toy.splits``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pipelines.data.toy import lexicon
from pipelines.data.toy.draw import Draw, first
from pipelines.data.toy.generator import Generator, Pair
from pipelines.data.toy.sampling import SentenceSampler
from pipelines.data.toy.sentences import Sentence, draw_sentence
from pipelines.data.toy.splits import split_of

WORDS = range(6, 26)  # English words of a sentence


@dataclass(frozen=True, kw_only=True)
class ToyDeEn(Generator):
    """German sentences in ``source``, a translation of each in ``target``."""

    train: int = 60_000
    purpose: ClassVar[str] = "toy_de_en/{split}/english"

    def pairs(self, split: str) -> Iterator[Pair]:
        """Different sentences of a split, without end."""
        return ((sentence.german, sentence.english) for sentence in sentences(self.seed, split))


def sentences(seed: int, split: str) -> Iterator[Sentence]:
    """Different German sentences of a split, without end."""
    sampler = SentenceSampler(Draw(seed, f"toy_de_en/{split}"), lexicon.load())
    seen = set()
    while True:
        sentence = draw_sentence(sampler)
        if split_of(sampler.pairs) != split or sentence.german in seen:
            continue
        if len(sentence.english(first).split()) in WORDS:
            seen.add(sentence.german)
            yield sentence
