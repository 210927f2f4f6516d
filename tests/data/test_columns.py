"""A side of a pair is a column, or a text with columns in braces; a list is one line per item."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from pipelines.cli import UserError
from pipelines.data import columns, files
from pipelines.data.hub import Hub
from pipelines.data.task import Task


@pytest.mark.parametrize(
    ("side", "found"),
    [
        ("article", ["article"]),
        ("translation.de", ["translation.de"]),
        ("{context} Question: {question}", ["context", "question"]),
        ("{answers.text:unanswerable}", ["answers.text"]),
        ("{answer.value}\n{answer.aliases}", ["answer.value", "answer.aliases"]),
    ],
)
def test_names(side, found):
    assert columns.names(side) == found
    assert columns.is_filled(side) == ("{" in side)


@pytest.mark.parametrize(
    ("side", "values", "text"),
    [
        ("{a} Question: {b}", {"a": "One\n two. ", "b": "Why?\t"}, "One two. Question: Why?"),
        ("{a}", {"a": ["Paris", " the city\nof  light "]}, "Paris\nthe city of light"),
        ("{a:none}", {"a": []}, "none"),
        ("{a:none}", {"a": [" "]}, "none"),
        ("{a:none}", {"a": ["some"]}, "some"),
        ("{a}\n{b}", {"a": "Sinclair Lewis", "b": ["Lewis", "Harry Lewis"]}, "Sinclair Lewis\nLewis\nHarry Lewis"),
        ("{a}\n{b}", {"a": "Lewis", "b": []}, "Lewis"),
        ("{a}", {"a": []}, ""),
        ("{a}", {"a": "{b} stays {b}"}, "{b} stays {b}"),
    ],
)
def test_fill(side, values, text):
    assert columns.fill(side, values) == text


@pytest.mark.parametrize("side", ["{question", "a {} b", "}", "{a}{"])
def test_braces_that_make_no_sense_are_one_line(side):
    with pytest.raises(UserError, match=r"task\.source_column=.*; write columns as \{column\}"):
        Task(
            name="x", version=1, metric="bleu", origin=None, source_length=8, target_length=8, source_column=side
        )  # fmt: skip


ROWS = [
    {"question": "Who?", "answers": {"text": ["Ann", "Ann\nLee"], "answer_start": [1, 2]}},
    {"question": "When?", "answers": {"text": [], "answer_start": []}},
]
SIDES = ("Q: {question}", "{answers.text:nobody}")
PAIRS = [{"source": "Q: Who?", "target": "Ann\nAnn Lee"}, {"source": "Q: When?", "target": "nobody"}]


def test_a_file_and_the_hub_give_the_same(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(files.load(str(path), SIDES)) == PAIRS
    folder = tmp_path / "hub" / "train"
    folder.mkdir(parents=True)
    Dataset.from_list(ROWS).to_parquet(folder / "0000.parquet")
    hub = Hub(path=str(tmp_path / "hub"), splits={"train": "train[1:]", "test": "train"})
    assert list(hub.load("test", SIDES)) == PAIRS
    assert list(hub.load("train", SIDES)) == PAIRS[1:], "a part of a split"
    assert list(hub.load("test", SIDES, limit=1)) == PAIRS[:1]
    assert hub.load("test", ("question", "{answers.text:none}"))["source"][0] == "Who?"
    with pytest.raises(UserError, match="has no column 'answer'"):
        hub.load("test", ("{question}", "{answer}"))


def test_the_hub_leaves_out_rows_without_an_answer(tmp_path):
    folder = tmp_path / "hub" / "train"
    folder.mkdir(parents=True)
    Dataset.from_list([*ROWS, {**ROWS[0], "question": None}]).to_parquet(folder / "0000.parquet")
    assert list(Hub(path=str(tmp_path / "hub")).load("train", ("{question}", "{answers.text}"))) == [
        {"source": "Who?", "target": "Ann\nAnn Lee"}
    ]


@pytest.mark.parametrize(
    ("row", "side", "told"),
    [
        ({"question": "a"}, "{answers}", r"row 1 has no column 'answers' \(it has source, question\)"),
        ({"answers": []}, "{answers}", r"row 1, column '\{answers\}' is empty"),
        ({"answers": ["a", 3]}, "{answers}", "row 1, column 'answers' is a list, not text"),
        ({"answers": ["a"]}, "answers", r"row 1, column 'answers' is a list, not text; \{answers\} in braces takes"),
        ({"answers": None}, "{answers:none}", "row 1, column 'answers' is null, not text"),
        ({"answers": ["\ud800"]}, "{answers}", "has half a character"),
    ],
)
def test_defects_of_a_file_are_one_line(row, side, told, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"source": "x", **row}) + "\n")
    with pytest.raises(UserError, match=told) as caught:
        files.load(str(path), ("source", side))
    assert "\n" not in str(caught.value)
