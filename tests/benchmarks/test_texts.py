"""Rows are read from JSON lines or refused in one line; outputs are scored as the field does."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.errors import UserError
from benchmarks.methods import pad
from benchmarks.texts import Text, bleu, fingerprint, margin, read_texts
from tests.benchmarks.conftest import ROOT
from tests.bild.models import tiny_t5

ROWS = [{"translation": {"de": "Hallö", "en": "Hello"}}, {"translation": {"de": "Ja", "en": "Yes"}}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_nested_fields_limit_and_gzip(file: Path) -> None:
    expected = [Text("Hallö", "Hello"), Text("Ja", "Yes")]
    assert read_texts(file, "translation.de", "translation.en", None) == expected
    assert read_texts(file, "translation.de", None, 1) == [Text("Hallö", None)]
    packed = file.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_texts(packed, "translation.de", "translation.en", 9) == expected


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (None, "source", "cannot be read"),
        ("", "source", "no rows"),
        ('{"source": "a"}\n{', "source", "line 2: not JSON"),
        ('{"source": "a", "target": "b"}', "text", "no text in the field 'text'; it has the fields: source, target"),
        ('{"source": 3}', "source", "no text in the field 'source'"),
        ('["a"]', "source", "it has the fields: none"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, field: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=says):
        read_texts(path, field, None, None)


def test_a_fingerprint_tells_rows_apart() -> None:
    assert fingerprint([Text("a", "b")]) != fingerprint([Text("a", None)])
    assert fingerprint([Text("a", "b")]) == fingerprint([Text("a", "b")])


def test_bleu() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints/pretrained/tiny-large")
    text = "The teacher turns on the radio in the garden."
    ids = tokenizer(text).input_ids
    assert bleu([ids], [Text("", text)], tokenizer) == pytest.approx(100)
    assert bleu([ids[:3]], [Text("", text)], tokenizer) < 50
    assert bleu([ids], [Text("", None)], tokenizer) is None


@torch.no_grad()
def test_the_margin_is_taken_where_outputs_part() -> None:
    model = tiny_t5(1, dtype=torch.float32)
    batch = pad([[5, 6, 1]], 0, torch.device("cpu"))
    logits = model(input_ids=batch[0], decoder_input_ids=torch.tensor([[0, 4, 7]])).logits[0]

    def gap(place: int) -> float:
        first, second = logits[place].topk(2).values.tolist()
        return first - second

    assert margin(model, batch, [4, 7, 9], [4, 8, 9]) == pytest.approx(gap(1), abs=1e-5)
    assert margin(model, batch, [4, 7], [4, 7, 9]) == pytest.approx(gap(2), abs=1e-5)
