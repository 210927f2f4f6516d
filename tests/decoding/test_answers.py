"""Answers against values computed by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pipelines.decoding import answers, scoring
from tests.conf import composed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The  Cat, an owl & a dog!", ["cat", "owl", "dog"]),
        ("U.S.A.", ["usa"]),
        ("well-known theory", ["wellknown", "theory"]),
        ("Anna", ["anna"]),
        ("the", []),
    ],
)
def test_words(text, found):
    assert answers.words(text) == found


# text, reference, exact match, F1: of 3 and 2 words with 2 in common it is 2 * 2 / 5.
CASES = [
    ("Paris.", "paris", 1, 1),
    ("the city of Paris", "Paris", 0, 2 / 4),
    ("New York City", "New York\nBoston", 0, 4 / 5),
    ("Boston", "New York\nBoston", 1, 1),
    ("a a cat cat", "cat dog", 0, 2 / 4),
    ("", "Paris", 0, 0),
    ("Rome", "Paris", 0, 0),
    ("The", "a", 1, 1),
    ("Unanswerable.", "unanswerable", 1, 1),
    ("it is unanswerable", "unanswerable", 0, 0),
    ("unanswerable", "an unanswerable question", 0, 0),
]


@pytest.mark.parametrize(("text", "reference", "match", "f1"), CASES)
def test_exact_match_and_f1(text, reference, match, f1):
    for metric, headline in (("exact_match", match), ("f1", f1)):
        quality = scoring.score(metric, [text], [reference])
        assert quality.scores == pytest.approx({"exact_match": 100 * match, "f1": 100 * f1})
        assert quality.headline == pytest.approx(100 * headline)
        assert quality.signature == "squad:lower,no-punctuation,no-articles|best-of-answers"


def test_scores_of_a_set_are_means():
    quality = scoring.score("f1", [case[0] for case in CASES], [case[1] for case in CASES])
    assert quality.scores["exact_match"] == pytest.approx(100 * sum(case[2] for case in CASES) / len(CASES))
    assert quality.headline == pytest.approx(100 * sum(case[3] for case in CASES) / len(CASES))


def test_the_word_for_no_answer_is_that_of_the_task():
    assert composed("evaluate", "task=squad_v2").task.target_column == f"{{answers.text:{answers.NO_ANSWER}}}"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7 eggs. #### 7", "7"),
        ("#### 5 wait, #### 1,234.50 dollars for 2", "1234.5"),
        ("So she pays $18.", "18"),
        ("It is -3 or so", "-3"),
        ("48/2 = <<48/2=24>>24, then 72.0", "72"),
        ("about .5", "0.5"),
        ("none at all", None),
        ("5 eggs ####", None),
        ("", None),
    ],
)
def test_final_number(text, number):
    assert answers.final_number(text) == (None if number is None else Decimal(number))


def test_numbers_are_compared_as_numbers():
    texts = ["the answer is 1234.0", "#### 1,234", "#### 1235", "no idea"]
    quality = scoring.score("number", texts, ["… #### 1234"] * 4)
    assert quality.scores == {"exact_match": 50}
    assert quality.headline == 50
    assert quality.signature == "gsm8k:number-after-####-or-last"
