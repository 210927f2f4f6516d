"""A split is decoded once, in order, whatever the batches, and a killed run goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
import torch

import bild
from pipelines.cli import UserError
from pipelines.decoding import decode
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.decoding.store import ChunkStore, Format
from tests.evaluation.conftest import make_task

POLICY = bild.BigLittle(fallback=0.3, rollback=1.0, draft_length=4)
GREEDY = Decoding(max_new_tokens=8)


def decoded(models, dataset, tokenizer, task, batch_size=4, decoding=GREEDY, store=None):
    decoder = BatchDecoder(models["large"], models["small"], tokenizer, decoding)
    inputs = decode.source_ids(dataset["source"], tokenizer, task)
    return decode.decode_rows(decoder, POLICY, inputs, batch_size, store, "decoding")


def test_rows_are_those_of_generate_in_the_datasets_order(models, dataset, tokenizer, task):
    rows = decoded(models, dataset, tokenizer, task)
    for source, row in zip(dataset["source"], rows, strict=True):
        encoded = tokenizer([source], return_tensors="pt")
        out = bild.generate(
            models["large"],
            models["small"],
            encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            policy=POLICY,
            max_new_tokens=GREEDY.max_new_tokens,
        )
        assert row.tokens == out.sequences[0, 1:].tolist()
        assert row.stats == out.stats[0]
        assert row.text == tokenizer.decode(row.tokens, skip_special_tokens=True)
    assert len({tuple(row.tokens) for row in rows}) > 1


def test_sampled_rows_do_not_depend_on_batches(models, dataset, tokenizer, task):
    decoding = Decoding(max_new_tokens=8, do_sample=True, seed=3)
    one, four = (decoded(models, dataset, tokenizer, task, size, decoding=decoding) for size in (1, 4))
    assert [row.tokens for row in one] == [row.tokens for row in four]
    other = decoded(models, dataset, tokenizer, task, decoding=Decoding(max_new_tokens=8, do_sample=True, seed=4))
    assert [row.tokens for row in other] != [row.tokens for row in one]


@pytest.mark.parametrize("batch_size", [1, 3, 20])
@pytest.mark.parametrize(
    "decoding", [GREEDY, Decoding(max_new_tokens=8, do_sample=True, seed=3)], ids=["greedy", "drawn"]
)
def test_rows_that_take_the_next_source_write_what_whole_batches_do(
    models, dataset, tokenizer, task, decoding, batch_size, monkeypatch
):
    inputs = decode.source_ids(dataset["source"], tokenizer, task)
    full = BatchDecoder(models["large"], None, tokenizer, decoding).decode(bild.LargeOnly(), inputs, range(10))
    ends = [1, *(full[place].tokens[place] for place in range(1, 6))]  # so that rows end at different times
    for model in models.values():
        monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
    rows = [7 * place for place in range(len(inputs))]
    decoder = BatchDecoder(models["large"], models["small"], tokenizer, decoding)
    for policy in (POLICY, bild.LargeOnly()):
        found = dict(decoder.decode_many(policy, inputs, rows, batch_size))
        assert [found[place].tokens for place in range(len(inputs))] == [
            decoder.decode(policy, inputs[place : place + 1], rows[place : place + 1])[0].tokens
            for place in range(len(inputs))
        ]
        assert len({len(row.tokens) for row in found.values()}) > 1


@pytest.mark.parametrize(
    ("engine", "setting", "at_once"), [("static", 0, True), ("hf", 0, True), ("auto", 2, False), ("auto", 0, True)]
)
def test_all_rows_go_to_generate_many_where_that_can_be(
    models, dataset, tokenizer, task, monkeypatch, engine, setting, at_once
):
    """Not with settings that look at a batch's first sources."""
    config = models["large"].generation_config
    monkeypatch.setattr(config, "encoder_no_repeat_ngram_size", setting, raising=False)
    sizes = []
    real = bild.generate
    monkeypatch.setattr(bild, "generate", lambda *a, **k: sizes.append(len(a[2])) or real(*a, **k))
    inputs = decode.source_ids(dataset["source"], tokenizer, task)
    decoder = BatchDecoder(models["large"], None, tokenizer, replace(GREEDY, engine=engine))
    places = [place for place, _ in decoder.decode_many(bild.LargeOnly(), inputs, range(10), 4)]
    assert sorted(places) == list(range(10))
    assert sizes == ([] if at_once else [4, 4, 2])


def test_a_bad_source_among_many_is_one_line(models, tokenizer):
    decoder = BatchDecoder(models["large"], None, tokenizer, GREEDY)
    with pytest.raises(UserError, match="input 1: input_ids hold the id 999"):
        list(decoder.decode_many(bild.LargeOnly(), [[5, 1], [999, 1]], [0, 1], 1))


class Killed(BaseException):
    """A run that ends in the middle."""


def test_a_killed_run_decodes_only_what_is_missing(models, dataset, tokenizer, task, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 4)
    calls = []
    real = bild.generate

    def dying(*arguments, **keywords):
        if len(calls) == 2:
            raise Killed
        calls.append(len(arguments[2]))
        return real(*arguments, **keywords)

    monkeypatch.setattr(bild, "generate", dying)
    store = ChunkStore(tmp_path / "chunks")
    with pytest.raises(Killed):
        decoded(models, dataset, tokenizer, task, store=store)
    (tmp_path / "chunks" / "00001.parquet").write_bytes(b"half a file")
    monkeypatch.setattr(bild, "generate", lambda *a, **k: calls.append(len(a[2])) or real(*a, **k))
    rows = decoded(models, dataset, tokenizer, task, store=store)
    # 10 rows in chunks of 4: the first was done, the second was damaged, the third never begun.
    assert calls == [4, 4, 4, 2]
    assert rows == decoded(models, dataset, tokenizer, task)


def test_chunks_of_another_batch_size_are_not_mixed_up(models, dataset, tokenizer, task, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 1)
    store = ChunkStore(tmp_path)
    decoded(models, dataset, tokenizer, task, 4, store=store)
    assert decoded(models, dataset, tokenizer, task, 3, store=store) == decoded(models, dataset, tokenizer, task, 3)


def test_a_finished_split_runs_no_model(models, dataset, tokenizer, task, tmp_path, monkeypatch):
    store = ChunkStore(tmp_path)
    rows = decoded(models, dataset, tokenizer, task, store=store)
    monkeypatch.setattr(bild, "generate", lambda *a, **k: pytest.fail("decoded again"))
    assert decoded(models, dataset, tokenizer, task, store=store) == rows


def test_what_generate_refuses_is_the_users_error(models, dataset, tokenizer, task):
    with pytest.raises(UserError, match="max_new_tokens=0"):
        decoded(models, dataset, tokenizer, task, decoding=Decoding(max_new_tokens=0))


def test_prefix_and_length_reach_the_model(tokenizer):
    task = replace(make_task(), prefix="Zug: ", source_length=6)
    [ids] = decode.source_ids(["Der Hund sieht den Fluss."], tokenizer, task)
    assert tokenizer.decode(ids[:-1]).startswith("Zug:")
    assert len(ids) == 6
    assert ids[-1] == tokenizer.eos_token_id


def test_a_source_that_just_fits_is_not_cut(tokenizer):
    sources = ["Der Hund sieht den Fluss.", "Der Hund.", "Der Hund sieht den Fluss und den Garten."]
    whole = decode.source_ids(sources, tokenizer, make_task())
    task = replace(make_task(), source_length=len(whole[0]))
    inputs = decode.source_ids(sources, tokenizer, task)
    assert inputs[0] == whole[0]
    assert len(inputs[2]) == len(inputs[0])
    assert decode.count_cut(sources, inputs, tokenizer, task) == 1
    assert decode.count_cut(sources[:2], inputs[:2], tokenizer, task) == 0


def test_padding_is_masked(models, tokenizer):
    ids, mask = BatchDecoder(models["large"], None, tokenizer, Decoding(max_new_tokens=1)).pad([[5, 6, 1], [7]])
    assert ids.tolist() == [[5, 6, 1], [7, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long


def test_some_rows_of_a_split_are_decoded_as_among_all(models, dataset, tokenizer, task):
    sampled = Decoding(max_new_tokens=8, do_sample=True, seed=3)
    decoder = BatchDecoder(models["large"], models["small"], tokenizer, sampled)
    inputs = decode.source_ids(dataset["source"], tokenizer, task)
    everything, some = (
        [row.tokens for row in decode.decode_rows(decoder, POLICY, inputs, 4, None, None, rows=rows)]
        for rows in (None, [7, 2, 5])
    )
    assert some == [everything[row] for row in (7, 2, 5)]
    assert len({*map(tuple, some)}) == 3


def test_a_store_keeps_rows_of_any_format(tmp_path):
    schema = pa.schema([("row", pa.int64()), ("length", pa.float64())])
    store = ChunkStore(
        tmp_path, Format(schema, lambda row, one: {"row": row, "length": one}, lambda record: record["length"])
    )
    inputs = [[1], [1, 2, 3], [1, 2]]
    found = decode.in_chunks(range(3), inputs, lambda rows: [len(inputs[row]) / 2 for row in rows], 2, store, None)
    assert found == [0.5, 1.5, 1.0]
    again = decode.in_chunks(range(3), inputs, lambda rows: pytest.fail("asked again"), 2, store, None)
    assert again == found
