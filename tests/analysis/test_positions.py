"""What both models say of every position: by hand, and as transformers' own forward says it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import bild
from bild.engine.truncated import truncated
from bild.sampling import Sampler
from bild.types import Scores
from pipelines.decoding import positions
from pipelines.decoding.decode import BatchDecoder, Decoding, decode_rows, source_ids

LARGE = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]
SMALL = [[0.2, 0.7, 0.1], [0.3, 0.5, 0.2]]


def compared(sampler: Sampler, written: list[int]) -> list[list[float]]:
    large, small = (
        Scores(raw=logits, processed=logits, sampler=sampler)
        for logits in (torch.tensor([one], dtype=torch.float64).log() for one in (LARGE, SMALL))
    )
    return positions.compare(large, small, torch.tensor([written]))[0].tolist()


def test_sampled_positions_by_hand():
    first, second = compared(Sampler(do_sample=True), [0, 2])
    # overlap, plain overlap, kept = min(1, q / p) of the written token, agrees, confidence, right = p(argmax q)
    assert first == pytest.approx([0.2 + 0.3 + 0.1, 0.6, 0.2 / 0.5, 0, 0.7, 0.3])
    assert second == pytest.approx([0.1 + 0.5 + 0.2, 0.8, 0.2 / 0.3, 1, 0.5, 0.6])
    assert compared(Sampler(do_sample=True), [1, 0])[0][2] == 1


def test_temperature_sharpens_all_but_what_is_plain():
    [first, _] = compared(Sampler(do_sample=True, temperature=0.5), [0, 2])
    p, q = ([value**2 / sum(one**2 for one in row[0]) for value in row[0]] for row in (LARGE, SMALL))
    assert first == pytest.approx([sum(map(min, p, q)), 0.6, q[0] / p[0], 0, 0.7, p[1]])


def test_greedy_positions_by_hand():
    first, second = compared(Sampler(), [0, 1])
    assert first == pytest.approx([0, 0.6, 0, 0, 0.7, 0])
    assert second == pytest.approx([1, 0.8, 1, 1, 0.5, 1])


def test_a_token_written_by_rounding():
    first, second = compared(Sampler(), [1, 0])
    assert first[2] == 1  # the small model would have drafted it
    assert second[2] == 0


def scored(pair, tokenizer, dataset, task, decoding, engine="static"):
    decoder = BatchDecoder(pair.large, pair.small, tokenizer, Decoding(max_new_tokens=8, engine=engine, **decoding))
    inputs = source_ids(dataset["source"], tokenizer, task)
    written = [row.tokens for row in decode_rows(decoder, bild.LargeOnly(), inputs, 4, None, None)]
    # As if some had ended early.
    return decoder, inputs, [tokens[: 3 + row % 6] for row, tokens in enumerate(written)]


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize("decoding", [{}, {"do_sample": True, "temperature": 0.7, "top_k": 50}])
def test_every_position_is_as_in_transformers_own_forward(pair, tokenizer, dataset, task, decoding, engine):
    decoder, inputs, written = scored(pair, tokenizer, dataset, task, decoding, engine)
    rows = positions.score(decoder, inputs, written)
    sampler = Sampler(**decoding)
    assert {len(row.overlap) for row in rows} == {3, 4, 5, 6, 7, 8}
    for source, tokens, row in zip(inputs, written, rows, strict=True):
        views = []
        for model in (pair.large, pair.small):
            before = torch.tensor([[0, *tokens[:-1]]])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([source]), decoder_input_ids=before).logits
            views.append(Scores(raw=logits, processed=logits, sampler=sampler))
        expected = positions.compare(*views, torch.tensor([tokens]))[0].numpy()
        found = np.array([getattr(row, name) for name in positions.FIELDS]).T
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("engine", ["static", "hf"])
def test_first_layers_are_scored_as_a_model_of_their_own(pair, tokenizer, dataset, task, engine, monkeypatch):
    """Also in several passes, where both depths of the model go on from what they share."""
    monkeypatch.setattr(positions, "BUDGET", 2 * len(dataset) * pair.large.config.vocab_size)
    decoder, inputs, written = scored(replace(pair, small=bild.EarlyExit(1)), tokenizer, dataset, task, {}, engine)
    alone = BatchDecoder(pair.large, truncated(pair.large, 1), tokenizer, decoder.decoding)
    for one, other in zip(positions.score(decoder, inputs, written), score_apart(alone, inputs, written), strict=True):
        for name in positions.FIELDS:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)


def score_apart(decoder, inputs, written):
    """Through transformers' own forward, which shares nothing."""
    for source, tokens in zip(inputs, written, strict=True):
        before = torch.tensor([[0, *tokens[:-1]]])
        with torch.no_grad():
            logits = [
                model(input_ids=torch.tensor([source]), decoder_input_ids=before).logits
                for model in decoder.models.values()
            ]
        large, small = (Scores(raw=one, processed=one, sampler=Sampler()) for one in logits)
        yield positions.Positions(*positions.compare(large, small, torch.tensor([tokens]))[0].T.tolist())


@pytest.mark.parametrize("decoding", [{}, {"do_sample": True}])
def test_guesses_are_one_hot_where_there_are_any(pair, tokenizer, dataset, task, decoding):
    decoder, inputs, written = scored(pair, tokenizer, dataset, task, decoding)
    table = {one: two for row in written for one, two in pairwise(row)}
    guessing = BatchDecoder(pair.large, bild.Bigram(table), tokenizer, decoder.decoding)
    rows = positions.score(guessing, inputs, written)
    for row, tokens in zip(rows, written, strict=True):
        guesses = [table.get(token) for token in [0, *tokens[:-1]]]
        assert row.confidence == [float(guess is not None) for guess in guesses]
        assert row.kept == [float(guess == token) for guess, token in zip(guesses, tokens, strict=True)]
        assert row.overlap == pytest.approx(row.right)
        if not decoding:
            assert row.overlap == row.kept == row.agrees
    assert {value for row in rows for value in row.confidence} == {0.0, 1.0}


def test_little_memory_gives_the_same(pair, tokenizer, dataset, task, monkeypatch):
    decoder, inputs, written = scored(pair, tokenizer, dataset, task, {"do_sample": True})
    whole = positions.score(decoder, inputs, written)
    monkeypatch.setattr(positions, "BUDGET", 2 * len(inputs) * pair.large.config.vocab_size)
    parts = positions.score(decoder, inputs, written)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.overlap, other.overlap, atol=1e-5)
        np.testing.assert_allclose(one.kept, other.kept, atol=1e-5)


def test_processors_are_the_decoders(pair, tokenizer, dataset, task, monkeypatch):
    """A token that the model may not write is nowhere its choice."""
    _, _, free = scored(pair, tokenizer, dataset, task, {})
    favourite = free[0][0]
    monkeypatch.setattr(pair.large.generation_config, "suppress_tokens", [favourite])
    decoder, inputs, written = scored(pair, tokenizer, dataset, task, {})
    assert favourite not in {token for tokens in written for token in tokens}
    for row in positions.score(decoder, inputs, written):
        # Where the large model's own choice is what it wrote, both say the same.
        assert row.kept == row.agrees == row.right == row.overlap


def test_rows_are_kept_as_they_are(tmp_path):
    row = positions.Positions(*([float(place), 0.5] for place in range(6)))
    record = positions.FORMAT.to_record(3, row)
    assert record["row"] == 3
    assert positions.FORMAT.from_record(record) == row
