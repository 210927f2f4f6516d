"""Where a draft source that is no model comes from, and when a table that was counted before is used again."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

import bild
from pipelines.cli import UserError
from pipelines.data.task import Task
from pipelines.models import loading, manifest, shortlist
from pipelines.models.fingerprint import model_hash, source_hash, tokenizer_hash
from pipelines.models.sources import NO_EXIT, Bigram, EarlyExit, PromptLookup, SourceConfig
from tests.alignment import stand_in
from tests.training import tiny

WORDS = tiny.WORDS[:3]
TARGETS = [" ".join(WORDS[place] for place in places) for places in ([0, 1, 0], [0, 1], [1, 0, 1, 0])]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task of three training rows, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    write(TARGETS)
    return Task(
        name="made", version=1, metric="bleu", origin=None, source_length=8, target_length=4,
        data_files={"train": "train.jsonl"},
    )  # fmt: skip


def write(targets: list[str]) -> None:
    rows = [json.dumps({"source": "x", "target": target}) for target in targets]
    Path("train.jsonl").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def large() -> loading.LoadedModel:
    return loading.LoadedModel(tiny.new_model(), tiny.TOKENIZER, "large", "large")


def bigram(**changes) -> SourceConfig:
    return Bigram(**{"name": "bigram", "texts": "auto", "outputs": "outputs", "limit": None} | changes)


def expected(targets: list[str], start: int) -> bild.Bigram:
    rows = [tiny.TOKENIZER(text, max_length=4, truncation=True)["input_ids"] for text in targets]
    return bild.Bigram.from_outputs(rows, start=start)


def test_a_table_is_counted_in_the_targets_as_training_sees_them(task, large):
    made = bigram().load(large, task)
    assert made.source == expected(TARGETS, large.model.generation_config.decoder_start_token_id)
    assert made.note.startswith(
        f"bigram: what most often follows each of {len(made.source.table)} tokens in 3 training"
    )
    assert bigram(limit=1).load(large, task).source == expected(TARGETS[:1], 0)


def test_a_table_is_counted_once_for_the_same_texts(task, large, monkeypatch):
    first = bigram().load(large, task).source
    [kept] = Path("checkpoints/made").glob("bigram-*.json")
    with monkeypatch.context() as patched:
        patched.setattr(bild.Bigram, "from_outputs", lambda *_, **__: pytest.fail("counted again"))
        assert bigram().load(large, task).source == first
    write([*TARGETS[:2], f"{WORDS[2]} {WORDS[1]}"])
    assert bigram().load(large, task).source != first
    assert len(list(Path("checkpoints/made").glob("bigram-*.json"))) == 2
    kept.write_text("{")
    write(TARGETS)
    assert bigram().load(large, task).source == first
    assert bild.Bigram.load(kept) == first


def outputs(large: loading.LoadedModel, **others: str) -> list[list[int]]:
    """The stand-in's outputs as those of a large model; returns their tokens."""
    folder, _ = stand_in.fill(Path("outputs/train"))
    own = {"tokenizer": tokenizer_hash(large.tokenizer), "large": model_hash(large.model)}
    folder.identity.update(own | others)
    folder.finish({})
    return folder.dataset()["tokens"]


def test_what_the_large_model_wrote_goes_before_the_targets(task, large):
    rows = outputs(large)
    made = bigram().load(large, task)
    assert made.source == bild.Bigram.from_outputs(rows, start=0)
    assert "the large model's outputs in outputs/train" in made.note
    assert bigram(limit=13).load(large, task).source == bild.Bigram.from_outputs(rows[:13], start=0)
    assert bigram(texts="targets").load(large, task).source == expected(TARGETS, 0)


def test_outputs_in_another_vocabulary_are_not_counted(task, large):
    outputs(large, tokenizer="another")
    assert bigram().load(large, task).source == expected(TARGETS, 0)
    with pytest.raises(
        UserError, match=r"outputs/train: was written with another tokenizer; choose small.texts=targets"
    ):
        bigram(texts="outputs").load(large, task)


def test_outputs_of_other_weights_are_not_counted(task, large):
    """A model that has been trained again no longer writes what the table would say it wrote."""
    outputs(large)
    trained = loading.LoadedModel(copy.deepcopy(large.model), large.tokenizer, "large", "large")
    with torch.no_grad():
        trained.model.shared.weight[0, 0] += 1
    assert "the large model's outputs" in bigram().load(large, task).note
    made = bigram().load(trained, task)
    assert made.source == expected(TARGETS, 0)
    assert "training targets" in made.note
    with pytest.raises(UserError, match=r"outputs/train: was written by other weights.*; choose small.texts=targets"):
        bigram(texts="outputs").load(trained, task)


def test_what_is_not_there_is_told_in_one_line(task, large):
    with pytest.raises(UserError, match=r"outputs/train: holds no finished outputs .*no manifest.*run pipelines.align"):
        bigram(texts="outputs").load(large, task)
    Path("train.jsonl").unlink()
    with pytest.raises(UserError, match=r"the bigram table is counted in training targets, but .*train\.jsonl"):
        bigram().load(large, task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"texts": "both"}, "small.texts=both: choose one of auto"), ({"limit": 0}, "small.limit=0")],
)
def test_mistakes_are_told_before_anything_is_read(changes, message):
    with pytest.raises(UserError, match=message):
        bigram(**changes)


def test_a_source_is_its_kind_and_its_fields(task, large):
    lookups = [PromptLookup(name="any", max_ngram=size, min_ngram=1).load(large, task).source for size in (2, 3, 3)]
    assert lookups[1] == bild.PromptLookup(max_ngram=3, min_ngram=1)
    tables = [bild.Bigram({3: 4, 5: 6}), bild.Bigram({5: 6, 3: 4}), bild.Bigram({3: 4, 5: 7})]
    hashes = [source_hash(source) for source in [*lookups, *tables]]
    assert hashes[1] == hashes[2]
    assert hashes[3] == hashes[4]
    assert len(set(hashes)) == 4


def test_early_exit_is_of_the_large_model_itself(task):
    deep = loading.LoadedModel(tiny.new_model(num_layers=3), tiny.TOKENIZER, "large", "large")
    made = EarlyExit(name="early_exit", layers=2, shortlist=False).load(deep, task)
    assert made.source == bild.EarlyExit(2)
    untrained = f"; {NO_EXIT}"
    assert "python -m pipelines.finetune model=tiny-large-early-exit" in untrained
    assert made.note == f"early_exit: the first 2 decoder layers of the large model, with its head{untrained}"
    Path("large").mkdir()
    manifest.write("large", identity={"train.exits.2": 1.0, "train.exits.3": 1.0})
    assert EarlyExit(name="early_exit", layers=2, shortlist=False).load(deep, task).note + untrained == made.note
    assert EarlyExit(name="early_exit", layers=1, shortlist=False).load(deep, task).note.endswith(untrained)
    assert source_hash(made.source) != source_hash(bild.EarlyExit(1))
    with pytest.raises(UserError, match=r"small\.shortlist=true: there is no large/shortlist\.json; "):
        EarlyExit(name="early_exit", layers=2, shortlist=True).load(deep, task)
    shortlist.write(Path("large"), [1, 5, 9], tiny.TOKENIZER, 1)
    listed = EarlyExit(name="early_exit", layers=2, shortlist=True).load(deep, task)
    assert (listed.source, listed.shortlist, made.shortlist) == (made.source, (1, 5, 9), None)
    assert listed.note.endswith(f"; drafts from 3 tokens of {len(tiny.TOKENIZER)} (shortlist.json)")
    with pytest.raises(UserError, match=r"small.layers=3: .* must leave out a layer, but .* decoder has 3"):
        EarlyExit(name="early_exit", layers=3, shortlist=False).load(deep, task)
    with pytest.raises(ValueError, match="layers=0 must be a whole number >= 1"):
        EarlyExit(name="early_exit", layers=0, shortlist=False)
