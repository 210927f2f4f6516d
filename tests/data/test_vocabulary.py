"""Vocabularies and encoding: the same every time, nothing unreadable, EOS kept by truncation."""

import hashlib
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5Config

from pipelines.cli import UserError
from pipelines.data import vocabulary
from pipelines.data.encode import encode
from pipelines.data.task import Task
from pipelines.data.toy.de_en import ToyDeEn

TRAIN = """
import hashlib
from pipelines.data.toy.de_en import ToyDeEn
from pipelines.data.vocabulary import train_tokenizer
rows = ToyDeEn().load("train", limit=300)
tokenizer = train_tokenizer([*rows["source"], *rows["target"]], 600)
print(hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def rows():
    return ToyDeEn().load("train", limit=300)


@pytest.fixture(scope="module")
def tokenizer(rows):
    return vocabulary.train_tokenizer([*rows["source"], *rows["target"]], 600)


def task(**changes):
    fields = {"name": "x", "version": 1, "metric": "bleu", "origin": ToyDeEn(), "source_length": 9, "target_length": 7}
    return Task(**{**fields, **changes})


def test_same_text_and_size_give_the_same_tokenizer(rows, tokenizer):
    again = vocabulary.train_tokenizer([*rows["source"], *rows["target"]], 600)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    other = vocabulary.train_tokenizer(rows["source"], 600)
    assert other.backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str()


def test_same_tokenizer_in_another_process(tokenizer):
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": ".", "OMP_NUM_THREADS": "2"}
    there = subprocess.check_output([sys.executable, "-c", TRAIN], env=environment, text=True, timeout=120)
    assert there.strip() == hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def test_ids_are_as_in_t5(tokenizer):
    assert len(tokenizer) == 600
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.convert_ids_to_tokens([3, 258]) == ["<0x00>", "<0xFF>"]
    encoded = tokenizer(["Der Hund schläft.", ""])
    assert [ids[-1] for ids in encoded["input_ids"]] == [1, 1]
    assert set(encoded) == {"input_ids", "attention_mask"}


def test_known_words_are_pieces_not_bytes(rows, tokenizer):
    ids = [index for text in rows["source"] for index in tokenizer(text)["input_ids"]]
    assert sum(3 <= index <= 258 for index in ids) < 0.01 * len(ids)  # the rarest letters are
    assert len(ids) / sum(len(text.split()) for text in rows["source"]) < 4


def read_back(tokenizer, text):
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("text", ["漢字 und 🙂", "naïve Ωmega", "Straße — „ja“ …", "a,b ; c !", "x<y>z \\ {}[]", "½ №"])
def test_unseen_characters_are_read_back(tokenizer, text):
    assert read_back(tokenizer, text) == text
    assert 2 not in tokenizer(text)["input_ids"]


letters = st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Cn"), blacklist_characters="▁")


@given(st.text(letters, max_size=20))
@settings(max_examples=60)
def test_any_word_is_read_back(text):
    tokenizer = small()
    assert read_back(tokenizer, text) == unicodedata.normalize("NFC", text)


_small = []


def small():
    if not _small:
        _small.append(vocabulary.train_tokenizer(["der Hund", "die Katze", "das Haus"] * 20, 300))
    return _small[0]


def test_white_space_is_joined(tokenizer):
    assert read_back(tokenizer, "  Der\n\nHund \t schläft. ") == "Der Hund schläft."


def test_saved_beside_a_t5_model_it_loads_as_it_was(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    T5Config().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Der Hund 漢字 schläft."
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert read_back(loaded, text) == text
    assert len(loaded) == len(tokenizer)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)


def test_sizes_that_cannot_be():
    with pytest.raises(UserError, match="size 200 is too small"):
        vocabulary.train_tokenizer(["a b c"], 200)
    with pytest.raises(UserError, match="no vocabulary of 300 tokens"):
        vocabulary.train_tokenizer([chr(0x4E00 + index) * 3 for index in range(500)], 300)
    with pytest.raises(UserError, match="no vocabulary"):
        vocabulary.train_tokenizer([], 400)
    assert len(small()) <= 300


def test_encode_adds_the_prefix_truncates_and_keeps_eos(rows, tokenizer):
    encoded = encode(rows, tokenizer, task(prefix="mach: "))
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert len(encoded) == len(rows)
    for row, text in zip(encoded, rows, strict=True):
        whole = tokenizer("mach: " + text["source"])["input_ids"]
        assert row["input_ids"] == (whole if len(whole) <= 9 else [*whole[:8], 1])
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        whole = tokenizer(text["target"])["input_ids"]
        assert row["labels"] == (whole if len(whole) <= 7 else [*whole[:6], 1])
    assert max(map(len, encoded["input_ids"])) == 9
    assert max(map(len, encoded["labels"])) == 7


def test_encode_knows_task_and_tokenizer_apart(rows, tokenizer):
    """A cached result of another prefix, length or vocabulary must never be taken for this one."""
    other = vocabulary.train_tokenizer(rows["target"], 500)
    results = [
        encode(rows, tokenizer, task()),
        encode(rows, tokenizer, task(prefix="x")),
        encode(rows, tokenizer, task(source_length=8)),
        encode(rows, tokenizer, task(target_length=6)),
        encode(rows, other, task()),
        encode(rows.select(range(200)), tokenizer, task()),
    ]
    assert len({result._fingerprint for result in results}) == len(results)
    assert encode(rows, tokenizer, task())._fingerprint == results[0]._fingerprint


def test_encode_shows_a_bar_only_where_it_takes_long(rows, tokenizer, monkeypatch, capsys):
    encode(rows, tokenizer, task(prefix="at once: "))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("pipelines.data.encode.PATIENCE", 0)
    encode(rows, tokenizer, task(prefix="for long: "))
    shown = capsys.readouterr().err
    assert f"0/{len(rows)}" in shown
    assert "Map" not in shown, "the library's own bar"
