"""Noun phrases, places and times: each knows its German in every case and its English.

Knows phrases; knows nothing about clauses. English is written with a ``Choose``, because it is where one German
sentence has several translations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.data.toy import english, german
from pipelines.data.toy.draw import Choose
from pipelines.data.toy.lexicon import Adjective, Noun


class Nominal(Protocol):
    """What can be a subject or an object."""

    @property
    def person(self) -> str:
        """1s, 2s, 3s, 1p or 3p."""
        ...

    @property
    def slot(self) -> str:
        """Gender or p, for relative pronouns."""
        ...

    @property
    def pronoun(self) -> bool: ...

    @property
    def accusative(self) -> bool:
        """Whether its accusative differs from its nominative, so that it may stand before the verb."""
        ...

    def german(self, case: str) -> str: ...

    def english(self, choose: Choose, subject: bool = False) -> str: ...


# German stem -> English for the singular and for the plural ("" where it has none).
DETERMINERS = {
    "d": ("the", "the"),
    "ein": ("a", ""),
    "dies": ("this", "these"),
    "jed": ("every", ""),
    "mein": ("my", "my"),
    "dein": ("your", "your"),
    "sein": ("his", "his"),
    "ihr": ("her", "her"),
    "unser": ("our", "our"),
}
NUMBERS = {
    "zwei": "two",
    "drei": "three",
    "vier": "four",
    "fünf": "five",
    "sechs": "six",
    "sieben": "seven",
    "acht": "eight",
    "neun": "nine",
    "zehn": "ten",
    "elf": "eleven",
    "zwölf": "twelve",
}


@dataclass(frozen=True)
class NounPhrase:
    """Determiner, adjectives, noun. ``determiner`` is a stem of ``DETERMINERS``, a number of ``NUMBERS`` or ""."""

    determiner: str
    adjectives: tuple[Adjective, ...]
    noun: Noun
    plural: bool
    pronoun = False

    @property
    def person(self) -> str:
        return "3p" if self.plural else "3s"

    @property
    def slot(self) -> str:
        return "p" if self.plural else self.noun.gender

    @property
    def accusative(self) -> bool:
        return self.slot == "m" and bool(self.determiner)

    def german(self, case: str) -> str:
        stem = "" if self.determiner in NUMBERS else self.determiner
        words = [german.adjective(word.german, stem, case, self.slot) for word in self.adjectives]
        words.append(german.noun(self.noun, case, self.plural))
        if self.determiner:
            words.insert(0, german.determiner(stem, case, self.slot) if stem else self.determiner)
        return " ".join(words)

    def english(self, choose: Choose, subject: bool = False) -> str:
        words = [choose(word.english, word.synonym) for word in self.adjectives]
        if self.plural:
            words.append(self.noun.english_plural)
        else:
            words.append(choose(self.noun.english, self.noun.synonym))
        phrase = " ".join(words)
        if not self.determiner:
            return phrase
        if self.determiner in NUMBERS:
            return f"{NUMBERS[self.determiner]} {phrase}"
        word = DETERMINERS[self.determiner][self.plural]
        return english.article(phrase) if word == "a" else f"{word} {phrase}"


@dataclass(frozen=True)
class Name:
    """A person's name, the same in both languages and in every case."""

    name: str
    gender: str
    person = "3s"
    pronoun = False
    accusative = False

    @property
    def slot(self) -> str:
        return self.gender

    def german(self, case: str) -> str:
        return self.name

    def english(self, choose: Choose, subject: bool = False) -> str:
        return self.name


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun with its German cases and its English subject and object forms."""

    person: str
    slot: str
    nominative: str
    accusative_form: str
    dative: str
    subject: str
    object: str
    pronoun = True
    accusative = False

    def german(self, case: str) -> str:
        return {"nom": self.nominative, "acc": self.accusative_form, "dat": self.dative}[case]

    def english(self, choose: Choose, subject: bool = False) -> str:
        return self.subject if subject else self.object


PRONOUNS = (
    Pronoun("1s", "m", "ich", "mich", "mir", "I", "me"),
    Pronoun("2s", "m", "du", "dich", "dir", "you", "you"),
    Pronoun("3s", "m", "er", "ihn", "ihm", "he", "him"),
    Pronoun("3s", "f", "sie", "sie", "ihr", "she", "her"),
    Pronoun("1p", "p", "wir", "uns", "uns", "we", "us"),
    Pronoun("3p", "p", "sie", "sie", "ihnen", "they", "them"),
)
WOMEN = ["Anna", "Maria", "Julia", "Laura", "Sophie", "Clara", "Emma", "Lena", "Nina", "Eva"]
MEN = ["Peter", "Paul", "Max", "Jonas", "Felix", "Lukas", "David", "Tom", "Simon", "Leo"]
NAMES = tuple([Name(name, "f") for name in WOMEN] + [Name(name, "m") for name in MEN])
CITIES = ["Berlin", "Hamburg", "Dresden", "Leipzig", "Bremen", "London", "Paris", "Madrid", "Bonn", "Kassel"]


@dataclass(frozen=True)
class Adverbial:
    """A place or a time, finished in both languages. ``english_options`` starts with the most likely one."""

    german: str
    english_options: tuple[str, ...]
    tense: str = "any"  # any, past, present, future, or now (asks for the English progressive)

    def english(self, choose: Choose) -> str:
        return choose(*self.english_options)


@dataclass(frozen=True)
class Where:
    """A place of rest (dative) or a direction (accusative, or zu and the dative)."""

    preposition: str
    case: str
    phrase: NounPhrase
    english_preposition: str

    @property
    def german(self) -> str:
        return german.contract(self.preposition, self.phrase.german(self.case))

    def english(self, choose: Choose) -> str:
        return f"{self.english_preposition} {self.phrase.english(choose)}"
