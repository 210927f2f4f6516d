"""German inflection: determiners, adjective endings, nouns, verb forms.

Knows forms; knows nothing about word order or English. Slots are the genders m, f, n and p for every plural.
"""

from __future__ import annotations

from functools import cache

from pipelines.data.toy.lexicon import Noun, Verb

STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}
ARTICLE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}
# The relative pronoun differs from the article in the dative plural only (the genitive is not used).
RELATIVE = {**ARTICLE, "dat": {**ARTICLE["dat"], "p": "denen"}}
CONTRACTIONS = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("in", "das"): "ins",
    ("an", "das"): "ans",
    ("von", "dem"): "vom",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}
HABEN = {"1s": "habe", "2s": "hast", "3s": "hat", "1p": "haben", "3p": "haben"}
SEIN = {"1s": "bin", "2s": "bist", "3s": "ist", "1p": "sind", "3p": "sind"}
WAR = {"1s": "war", "2s": "warst", "3s": "war", "1p": "waren", "3p": "waren"}
WERDEN = {"1s": "werde", "2s": "wirst", "3s": "wird", "1p": "werden", "3p": "werden"}
MODALS = {
    "können": {"1s": "kann", "2s": "kannst", "3s": "kann"},
    "müssen": {"1s": "muss", "2s": "musst", "3s": "muss"},
    "wollen": {"1s": "will", "2s": "willst", "3s": "will"},
    "sollen": {"1s": "soll", "2s": "sollst", "3s": "soll"},
    "dürfen": {"1s": "darf", "2s": "darfst", "3s": "darf"},
    "möchten": {"1s": "möchte", "2s": "möchtest", "3s": "möchte"},
}


@cache
def determiner(stem: str, case: str, slot: str) -> str:
    """The inflected determiner: "d" (der), "dies", "jed", or an ein-word such as "ein", "mein", "unser"."""
    if stem == "d":
        return ARTICLE[case][slot]
    return stem if _bare(stem, case, slot) else stem + STRONG[case][slot]


@cache
def adjective(word: str, stem: str, case: str, slot: str) -> str:
    """The adjective after the determiner ``stem`` ("" for none or a number): weak after an ending, strong without."""
    ending = STRONG[case][slot] if not stem or _bare(stem, case, slot) else _weak(case, slot)
    return word.removesuffix("e") + ending


def _bare(stem: str, case: str, slot: str) -> bool:
    """Whether this determiner has no ending here: ein-words in the m and n nominative and the n accusative."""
    return stem.endswith(("ein", "ihr", "unser")) and (case, slot) in {("nom", "m"), ("nom", "n"), ("acc", "n")}


def _weak(case: str, slot: str) -> str:
    return "e" if slot != "p" and (case == "nom" or (case == "acc" and slot != "m")) else "en"


@cache
def noun(word: Noun, case: str, plural: bool) -> str:
    """The noun in its case: -n in the dative plural, weak masculines outside the nominative."""
    if plural:
        return word.plural + "n" if case == "dat" and not word.plural.endswith(("n", "s")) else word.plural
    return word.plural if word.weak and case != "nom" else word.german


def contract(preposition: str, phrase: str) -> str:
    """Join a preposition and a phrase: in dem Garten -> im Garten."""
    first, _, rest = phrase.partition(" ")
    joined = CONTRACTIONS.get((preposition, first))
    return f"{joined} {rest}" if joined else f"{preposition} {phrase}"


@cache
def present(verb: Verb, person: str) -> str:
    """The finite present without the particle. ``person`` is 1s, 2s, 3s, 1p or 3p."""
    if person == "1s":
        return verb.stem.removesuffix("n")
    if person == "2s":
        stem = verb.third.removesuffix("t")
        return verb.third if stem.endswith(("s", "ß", "z", "x")) else stem + "st"
    return verb.third if person == "3s" else verb.stem


def modal(name: str, person: str) -> str:
    """The finite present of a modal verb, by its infinitive."""
    return MODALS[name].get(person, name)


def zu_infinitive(verb: Verb) -> str:
    """zu lesen, aufzumachen."""
    return f"{verb.particle}zu{verb.stem}" if verb.particle else f"zu {verb.stem}"
