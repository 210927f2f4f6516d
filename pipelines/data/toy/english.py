"""English forms: articles, plurals, verb forms, negation.

Knows forms; knows nothing about word order or German.
"""

from __future__ import annotations

from functools import cache

BE = {"1s": "am", "2s": "are", "3s": "is", "1p": "are", "3p": "are"}
WAS = {"1s": "was", "2s": "were", "3s": "was", "1p": "were", "3p": "were"}
DOUBLING = {"run", "get", "swim", "sit", "put", "shut", "forget"}
THIRD = {
    "go": "goes",
    "do": "does",
    "have": "has",
    "watch": "watches",
    "wash": "washes",
    "fix": "fixes",
    "switch": "switches",
}
SHORT = {
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "will not": "won't",
    "cannot": "can't",
    "should not": "shouldn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "would not": "wouldn't",
}
PARTICLES = {"up", "on", "off", "away", "along", "back", "aloud"}


def article(phrase: str) -> str:
    """a or an, with the phrase that it stands before."""
    return f"{'an' if phrase[0] in 'aeiou' or phrase.startswith('hon') else 'a'} {phrase}"


@cache
def third_person(phrase: str) -> str:
    """The present of he, she, it: the first word of the phrase changes."""
    word, gap, rest = phrase.partition(" ")
    if word in THIRD:
        form = THIRD[word]
    elif word.endswith("y") and word[-2] not in "aeiou":
        form = word[:-1] + "ies"
    else:
        form = word + "s"
    return form + gap + rest


@cache
def progressive(phrase: str) -> str:
    """The -ing form: the first word of the phrase changes."""
    word, gap, rest = phrase.partition(" ")
    if word.endswith("ie"):
        form = word[:-2] + "ying"
    elif word.endswith("e") and word not in {"see", "be"}:
        form = word[:-1] + "ing"
    elif word in DOUBLING:
        form = word + word[-1] + "ing"
    else:
        form = word + "ing"
    return form + gap + rest


@cache
def simple_present(phrase: str, person: str) -> str:
    """The present of a verb phrase for any person."""
    return third_person(phrase) if person == "3s" else phrase


def negate(auxiliary: str) -> str:
    """The full negated auxiliary."""
    return "cannot" if auxiliary == "can" else f"{auxiliary} not"
