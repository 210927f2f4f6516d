"""Answers compared with the right ones: exact match, F1 of words, numbers. Knows strings alone.

The rules are those of SQuAD (Rajpurkar et al., EMNLP 2016; 2.0: ACL 2018, where words count for nothing if there is no
answer) and of GSM8K (Cobbe et al., 2021).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

NO_ANSWER = "unanswerable"
"""what a text says, and the only right answer, where a passage does not answer the question"""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_FINAL = "####"


def right_answers(reference: str) -> list[str]:
    """The answers of a target that has one a line."""
    return [line for line in reference.splitlines() if line.strip()]


def words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: lower case, no punctuation, no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def match(text: str, answers: Sequence[str]) -> float:
    """1 if the text is one of the answers, word for word; else 0."""
    return float(any(words(text) == words(answer) for answer in answers))


def best_f1(text: str, answers: Sequence[str]) -> float:
    """The largest F1, 0 to 1, of the text's words and those of an answer."""
    return max(_f1(words(text), words(answer)) for answer in answers)


def same_number(text: str, reference: str) -> float:
    """1 if both end with the same number; 0 if not, or if the text has none."""
    found = final_number(text)
    return float(found is not None and found == final_number(reference))


def final_number(text: str) -> Decimal | None:
    """The first number after the last "####"; without that mark the last number of the text; None if there is none."""
    _, mark, rest = text.rpartition(_FINAL)
    numbers = _NUMBER.findall(rest)
    if not numbers:
        return None
    return Decimal((numbers[0] if mark else numbers[-1]).replace(",", ""))


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs or [NO_ANSWER] in (ours, theirs):
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))
