"""The task toy_reports: reports of four to eight sentences on weather, football and trains, each with a summary.

A report is drawn as facts, told in sentences of which some do not matter, and summed up in one by the facts that do: it
needs the highest of several temperatures, a score counted from goals, a delay that was corrected later. The
pairs of names and facts that meet decide the split (``toy.splits``). So no report and no summary is in two splits;
single sentences, such as an aside, may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from pipelines.data.toy import football, trains, weather
from pipelines.data.toy.draw import Choose, Draw
from pipelines.data.toy.generator import Generator, Pair
from pipelines.data.toy.splits import split_of


@dataclass(frozen=True)
class Report:
    """The text, a function that writes a summary of it, and the pairs of words that decide its split."""

    text: str
    summary: Callable[[Choose], str]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ToyReports(Generator):
    """Reports in ``source``, a summary of each in ``target``."""

    train: int = 40_000
    purpose: ClassVar[str] = "toy_reports/{split}/summary"

    def pairs(self, split: str) -> Iterator[Pair]:
        """Different reports of a split, without end."""
        return ((report.text, report.summary) for report in reports(self.seed, split))


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
