"""The task toy_reports: reports of four to eight sentences on weather, football and trains, each with a summary.

A report is drawn as facts, told in sentences of which some do not matter, and summed up in one by the facts that do: it
needs the highest of several temperatures, a score counted from goals, a delay that was corrected later. The
pairs of names and facts that meet decide the split (``toy.splits``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from datasets import Dataset

from pipelines.data.toy import football, trains, weather
from pipelines.data.toy.draw import Choose, Draw, chooser
from pipelines.data.toy.splits import split_of


@dataclass(frozen=True)
class Report:
    """The text, a function that writes a summary of it, and the pairs of words that decide its split."""

    text: str
    summary: Callable[[Choose], str]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ToyReports:
    """A seeded generator: rows by split. Cutting a split short leaves its first rows as they are."""

    seed: int = 0
    train: int = 40_000
    validation: int = 500
    test: int = 500
    usual: float = 0.75  # how often a text takes the usual one of several right words or orders

    def load(self, split: str, columns: tuple[str, str] = ("", ""), limit: int | None = None) -> Dataset:
        """Reports of a split in ``source``, their summaries in ``target``."""
        count = getattr(self, split)
        choose = chooser(Draw(self.seed, f"toy_reports/{split}/summary"), self.usual)
        rows = list(islice(reports(self.seed, split), count if limit is None else min(count, limit)))
        return Dataset.from_dict(
            {"source": [row.text for row in rows], "target": [row.summary(choose) for row in rows]}
        )  # fmt: skip


def reports(seed: int, split: str) -> Iterator[Report]:
    """Different reports of a split, without end."""
    draw = Draw(seed, f"toy_reports/{split}")
    seen = set()
    while True:
        facts = draw.pick((weather, football, trains)).draw_facts(draw)
        if split_of(facts.pairs) != split:
            continue
        text = " ".join(facts.sentences(draw))
        if text not in seen:
            seen.add(text)
            yield Report(text, facts.summary, facts.pairs)
