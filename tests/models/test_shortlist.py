"""The tokens that a small model may draft: counted, kept, and refused where they do not fit."""

import json
from pathlib import Path

import pytest

from pipelines.cli import UserError
from pipelines.models import loading, shortlist
from tests.training import tiny

SPECIAL = sorted(tiny.TOKENIZER.all_special_ids)
OUTPUTS = [[7, 9, 7, 1], [9, 12, 1], []]


@pytest.mark.parametrize(("min_count", "ids"), [(1, {7, 9, 12, 1}), (2, {7, 9, 1}), (3, set())])
def test_what_occurs_so_often_and_all_special_tokens(min_count, ids):
    assert shortlist.collect(OUTPUTS, tiny.TOKENIZER, min_count) == sorted({*ids, *SPECIAL})


def save(folder: Path) -> Path:
    tiny.new_model().save_pretrained(folder)
    tiny.TOKENIZER.save_pretrained(folder)
    return folder


def test_only_the_small_model_of_a_pair_gets_it_and_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "weights")
    shortlist.write(folder, [1, 5, 9], tiny.TOKENIZER, 1)
    asked = loading.Model(name="tiny", path=str(folder), shortlist=True)
    loaded = loading.load(asked, "task", "small")
    assert loaded.shortlist == (1, 5, 9)
    assert loaded.note.endswith(f"; drafts from 3 tokens of {len(tiny.TOKENIZER)} (shortlist.json)")
    others = [loading.load(asked, "task", "finetune")]
    others.append(loading.load(loading.Model(name="tiny", path=str(folder)), "task", "small"))
    with pytest.raises(UserError, match=r"^large\.shortlist=true: is for the small model of a pair; leave it out"):
        loading.load(asked, "task", "large")
    assert all(one.shortlist is None and "drafts" not in one.note for one in others)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^small\.shortlist=true: there is no .*weights/shortlist\.json; pipelines\.align"),
        ("{", "shortlist.json: is no list of token ids; run the training of the checkpoint again"),
        (json.dumps({"tokenizer": "x"}), "is no list of token ids"),
        (json.dumps({"tokenizer": "x", "ids": ["a"]}), "is no list of token ids"),
        (
            json.dumps({"tokenizer": "x", "ids": [1]}),
            "was made with another tokenizer than the one that lies beside it; run the training of the checkpoint",
        ),
    ],
)
def test_what_cannot_serve_is_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "weights")
    if content is not None:
        (folder / shortlist.NAME).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        loading.load(loading.Model(name="tiny", path=str(folder), shortlist=True), "task", "small")
    assert "\n" not in str(caught.value)
