"""The words of the German-English grammar, read from the tables in ``lexicon/``.

Knows words and what goes with what; knows nothing about inflection or sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

TABLES = Path(__file__).parent / "lexicon"


@dataclass(frozen=True)
class Noun:
    """A noun. ``plural`` and ``english_plural`` are "-" where there is none; ``modifier`` marks a compound."""

    german: str
    gender: str  # m, f, n
    plural: str
    english: str
    synonym: str  # "" where there is none
    english_plural: str
    classes: frozenset[str]
    weak: bool = False  # takes the plural's form in every singular case but the nominative
    place: tuple[str, str] = ("", "")  # German and English preposition of rest
    modifier: str = ""

    @cached_property
    def countable(self) -> bool:
        """Whether it takes an indefinite article and numbers in both languages."""
        return "-" not in (self.plural, self.english_plural)


@dataclass(frozen=True)
class Adjective:
    german: str
    english: str
    synonym: str
    classes: frozenset[str]


@dataclass(frozen=True)
class Verb:
    """A verb. ``stem`` is the infinitive without its separable particle, ``frame`` what it needs beside a subject."""

    particle: str
    stem: str
    third: str  # er-form without the particle
    participle: str
    auxiliary: str  # hat or ist
    english: str
    past: str
    synonym: tuple[str, str]  # base and past, both "" where there is none
    frame: str
    state: bool  # has no English progressive
    animal: bool  # animals do it too
    rests: bool  # may stand with a place
    objects: frozenset[str] = frozenset()

    @property
    def infinitive(self) -> str:
        return self.particle + self.stem


@dataclass(frozen=True)
class Lexicon:
    nouns: tuple[Noun, ...]  # compounds included
    adjectives: tuple[Adjective, ...]
    verbs: tuple[Verb, ...]

    @cached_property
    def by_class(self) -> dict[str, tuple[Noun, ...]]:
        """Nouns of each class, in the tables' order."""
        names = sorted({name for noun in self.nouns for name in noun.classes})
        return {name: tuple(noun for noun in self.nouns if name in noun.classes) for name in names}

    @cached_property
    def objects(self) -> dict[str, tuple[Noun, ...]]:
        """Nouns that each verb (by infinitive) takes as its object."""
        return {v.infinitive: tuple(n for n in self.nouns if n.classes & v.objects) for v in self.verbs}

    @cached_property
    def attributes(self) -> dict[str, tuple[Adjective, ...]]:
        """Adjectives that fit each noun (by its German form)."""
        return {n.german: tuple(a for a in self.adjectives if a.classes & n.classes) for n in self.nouns}

    @cached_property
    def by_frame(self) -> dict[str, tuple[Verb, ...]]:
        """Verbs by frame, in the table's order."""
        return {frame: tuple(v for v in self.verbs if v.frame == frame) for frame in {v.frame for v in self.verbs}}


@lru_cache(maxsize=1)
def load() -> Lexicon:
    """Read the tables once."""
    nouns = [_noun(*fields) for fields in _table("nouns.txt")]
    known = {noun.german.lower(): noun for noun in nouns}
    compounds = [
        _compound(modifier, english, known[head])
        for modifier, english, heads in _table("compounds.txt")
        for head in heads.split()
    ]
    adjectives = [Adjective(g, e, s, frozenset(c.split())) for g, e, s, c in _table("adjectives.txt")]
    verbs = [_verb(*fields) for fields in _table("verbs.txt")]
    return Lexicon(tuple(nouns + compounds), tuple(adjectives), tuple(verbs))


def _table(name: str) -> Iterator[list[str]]:
    for line in (TABLES / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            # A bar with space around it separates fields; auf|machen keeps its own.
            yield [field.strip() for field in re.split(r"\s\|(?=\s|$)", line)]


def _noun(german: str, gender: str, plural: str, english: str, synonym: str, english_plural: str, classes: str) -> Noun:
    names = [name.split(":") for name in classes.split()]
    places = [(name[1], name[2]) for name in names if name[0] == "place"]
    return Noun(
        german.rstrip("!"),
        gender,
        plural,
        english,
        synonym,
        english_plural if english_plural else english + "s",
        frozenset(name[0] for name in names),
        weak=german.endswith("!"),
        place=places[0] if places else ("", ""),
    )


def _compound(modifier: str, english: str, head: Noun) -> Noun:
    return replace(
        head,
        german=modifier + head.german.lower(),
        plural=modifier + head.plural.lower(),
        english=f"{english} {head.english}",
        synonym=f"{english} {head.synonym}" if head.synonym else "",
        english_plural=f"{english} {head.english_plural}",
        modifier=modifier,
    )


def _verb(
    german: str,
    third: str,
    participle: str,
    auxiliary: str,
    english: str,
    past: str,
    synonym: str,
    frame: str,
    objects: str,
) -> Verb:
    particle, _, stem = german.rpartition("|")
    kind, *marks = frame.split()
    base, _, base_past = synonym.partition(", ")
    return Verb(
        particle, stem, third, participle, auxiliary, english, past, (base, base_past), kind,
        "state" in marks, "animal" in marks, kind == "loc" or "loc" in marks, frozenset(objects.split()),
    )  # fmt: skip
