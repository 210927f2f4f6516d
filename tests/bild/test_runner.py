"""Every runner against a fresh full forward of transformers, for random programs of extend and rollback."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration

from bild.engine import make_runner
from bild.engine.hf import HuggingFaceRunner
from bild.engine.t5.runner import T5Runner
from tests.bild.models import VOCAB, pair, sources, tiny_t5

LENGTHS = [6, 1, 4]


def bart() -> torch.nn.Module:
    config = BartConfig(
        vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40, init_std=0.4,
        pad_token_id=0, bos_token_id=3, eos_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return BartForConditionalGeneration(config).double().eval()


MODELS = {
    "t5": pair(0)[0],
    "tied": tiny_t5(1, tied=True),
    "gated": tiny_t5(2, gated=True, layers=1),
    "deep encoder": tiny_t5(3, layers=3, decoder_layers=1),
    "deep decoder": tiny_t5(4, layers=1, decoder_layers=3),
    "bart": bart(),
}


@torch.no_grad()
def fresh(model, ids: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Logits (T, V) of one unpadded row without any cache."""
    output = model(input_ids=ids, decoder_input_ids=torch.tensor([tokens]), use_cache=False)
    return output.logits[0]


@torch.no_grad()
def play(model, engine: str, seed: int, steps: int) -> None:
    """A random program: every row extends by its own width or rolls back to its own length, and is checked."""
    dice = random.Random(seed)
    ids, mask = sources(seed, LENGTHS)
    runner = make_runner(model, engine, 100)
    runner.prefill(input_ids=ids, attention_mask=mask)
    held: list[list[int]] = [[] for _ in LENGTHS]
    for _ in range(steps):
        if dice.random() < 0.4 and any(held):
            lengths = [dice.randint(max(0, len(tokens) - 4), len(tokens)) for tokens in held]
            runner.rollback(lengths)
            held = [tokens[:length] for tokens, length in zip(held, lengths, strict=True)]
        else:
            widths = [dice.choice([0, 1, 1, 2, 4]) for _ in LENGTHS]
            widths[dice.randrange(len(widths))] = dice.randint(1, 3)
            tokens = torch.tensor([[dice.randrange(1, VOCAB) for _ in range(max(widths))] for _ in LENGTHS])
            logits = runner.extend(tokens, widths)
            assert logits.shape == (len(LENGTHS), max(widths), VOCAB)
            for row, width in enumerate(widths):
                held[row] += tokens[row, :width].tolist()
                if width > 0:
                    expected = fresh(model, ids[row : row + 1, : LENGTHS[row]], held[row])[-width:]
                    torch.testing.assert_close(logits[row, :width], expected, rtol=1e-9, atol=1e-9)
        assert runner.lengths == [len(tokens) for tokens in held]


PAIRINGS = [(name, engine) for name in MODELS for engine in ("hf", "static") if (name, engine) != ("bart", "static")]


@pytest.fixture(params=["hf", "static"])
def engine(request) -> str:
    return request.param


@pytest.mark.parametrize(("name", "engine"), PAIRINGS, ids=map(" ".join, PAIRINGS))
def test_every_program_equals_a_fresh_forward(name, engine):
    for seed in range(3):
        play(MODELS[name], engine, seed, steps=7)


@settings(max_examples=8, derandomize=True)
@given(seed=st.integers(0, 100_000), steps=st.integers(1, 12))
def test_any_program_equals_a_fresh_forward(seed, steps):
    for engine in ("hf", "static"):
        play(MODELS["t5"], engine, seed, steps)


@torch.no_grad()
def test_rollback_then_decode_is_a_fresh_prefill(engine):
    model = MODELS["t5"]
    ids, mask = sources(9, LENGTHS)
    tokens = torch.randint(1, VOCAB, (3, 6), generator=torch.Generator().manual_seed(0))
    used, new = make_runner(model, engine, 100), make_runner(model, engine, 100)
    for runner in (used, new):
        runner.prefill(input_ids=ids, attention_mask=mask)
    used.extend(tokens, [6, 5, 2])
    used.rollback([2, 0, 1])
    assert used.lengths == [2, 0, 1]
    new.extend(tokens, [2, 0, 1])
    others = tokens.flip(0)
    after = [runner.extend(others, [3, 2, 4]) for runner in (used, new)]
    for row, width in enumerate((3, 2, 4)):
        torch.testing.assert_close(after[0][row, :width], after[1][row, :width], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[3], [9], [2, 8]], ids=["shorter", "longer", "two"])
def test_a_restarted_row_is_a_fresh_one_and_the_others_go_on(engine, lengths):
    model = MODELS["t5"]
    ids, mask = sources(9, LENGTHS)
    others, other_mask = sources(10, lengths)
    rows = [2, 0][: len(lengths)]
    runner = make_runner(model, engine, 100)
    runner.prefill(input_ids=ids, attention_mask=mask)
    runner.extend(torch.tensor([[0, 5], [0, 6], [0, 7]]), [2, 1, 2])
    runner.restart(rows, input_ids=others, attention_mask=other_mask)
    lengths_now = [0 if row in rows else length for row, length in enumerate([2, 1, 2])]
    assert runner.lengths == lengths_now
    logits = runner.extend(torch.tensor([[0], [4], [0]]), [1, 1, int(2 in rows)])
    torch.testing.assert_close(logits[1, 0], fresh(model, ids[1:2, : LENGTHS[1]], [0, 4])[-1], rtol=1e-9, atol=1e-9)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        expected = fresh(model, others[place : place + 1, :length], [0])[-1]
        torch.testing.assert_close(logits[row, 0], expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_restart_writes_where_the_others_sources_stay():
    """No copy of what the rows hold of their sources, unless a source is longer than any before, and then with room."""
    runner = make_runner(MODELS["t5"], "static", 100)
    runner.prefill(input_ids=sources(9, [6, 5, 4])[0], attention_mask=sources(9, [6, 5, 4])[1])

    def restarted(length: int) -> tuple[int, ...]:
        ids, mask = sources(length, [length])
        runner.restart([1], input_ids=ids, attention_mask=mask)
        logits = runner.extend(torch.tensor([[0], [0], [0]]), [0, 1, 0])
        torch.testing.assert_close(logits[1, 0], fresh(MODELS["t5"], ids, [0])[-1], rtol=1e-9, atol=1e-9)
        return tuple(held.data_ptr() for held in runner._state._joined)

    places = [restarted(length) for length in (2, 6, 5, 7, 9, 3, 10)]
    assert len({places[0], places[1], places[2]}) == 1
    assert len({places[3], places[4], places[5]}) == 1
    assert len({*places}) == 3


@torch.no_grad()
def test_prefill_forgets_everything(engine):
    model = MODELS["t5"]
    ids, mask = sources(9, LENGTHS)
    runner = make_runner(model, engine, 100)
    runner.prefill(input_ids=ids, attention_mask=mask)
    runner.extend(torch.full((3, 2), 5), [2, 1, 0])
    other, _ = sources(10, [5, 5])
    runner.prefill(input_ids=other)
    assert runner.lengths == [0, 0]
    logits = runner.extend(torch.zeros(2, 1, dtype=torch.long), [1, 1])
    torch.testing.assert_close(logits[1], fresh(model, other[1:], [0]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_row_of_width_zero_is_left_alone(engine):
    model = MODELS["t5"]
    ids, mask = sources(9, LENGTHS)
    runner = make_runner(model, engine, 100)
    runner.prefill(input_ids=ids, attention_mask=mask)
    first = runner.extend(torch.tensor([[0], [0], [0]]), [1, 1, 1])
    runner.extend(torch.tensor([[7], [8], [9]]), [1, 0, 1])
    assert runner.lengths == [2, 1, 2]
    runner.rollback([0, 0, 0])
    assert torch.allclose(first, runner.extend(torch.tensor([[0], [0], [0]]), [1, 1, 1]))


@torch.no_grad()
def test_given_encoder_outputs_are_used_and_not_computed_again(monkeypatch, engine):
    model = MODELS["t5"]
    ids, _ = sources(9, [4])
    encoded = model.get_encoder()(ids)
    expected = fresh(model, ids, [0, 5])
    monkeypatch.setattr(model.encoder, "forward", lambda *args, **kwargs: pytest.fail("the encoder ran again"))
    runner = make_runner(model, engine, 100)
    runner.prefill(encoder_outputs=encoded, attention_mask=None)
    logits = runner.extend(torch.tensor([[0, 5]]), [2])
    torch.testing.assert_close(logits[0], expected, rtol=1e-9, atol=1e-9)


def test_the_vocabulary_is_the_width_of_the_head(engine):
    assert make_runner(tiny_t5(1, vocab=9), engine, 100).vocab_size == 9


def test_auto_is_static_where_it_serves():
    assert isinstance(make_runner(MODELS["t5"], "auto", 100), T5Runner)
    assert isinstance(make_runner(MODELS["bart"], "auto", 100), HuggingFaceRunner)


def test_a_wrong_engine_is_refused_by_name():
    with pytest.raises(ValueError, match=r"engine='fast' does not exist; use 'auto', .* or 'graphs'"):
        make_runner(MODELS["t5"], "fast", 100)
    with pytest.raises(ValueError, match=r"engine='static' cannot run this model: .* BartFor.*; use engine='hf'"):
        make_runner(MODELS["bart"], "static", 100)


@pytest.mark.parametrize(("engine", "parted"), [("hf", [set(), {0, 1}, {0, 1}, {1}, set()]), ("static", [set()] * 5)])
@torch.no_grad()
def test_rows_that_one_cache_cannot_hold_are_told(engine, parted):
    """Rows that rest while others move have not parted; a new text has not, and a new batch has not."""
    ids, mask = sources(0, [4, 4, 4])
    runner = make_runner(MODELS["t5"], engine, 20)
    runner.prefill(input_ids=ids, attention_mask=mask)
    tokens, found = torch.zeros(3, 2, dtype=torch.long), []
    runner.extend(tokens, [1, 1, 0])
    found.append(set(runner.parted))
    runner.extend(tokens, [1, 2, 0])
    found.append(set(runner.parted))
    runner.rollback([1, 1, 0])
    found.append(set(runner.parted))
    runner.restart([0, 2], input_ids=ids[:2], attention_mask=mask[:2])
    found.append(set(runner.parted))
    runner.prefill(input_ids=ids, attention_mask=mask)
    found.append(set(runner.parted))
    assert found == parted


@torch.no_grad()
@pytest.mark.parametrize("length", [3, 4])
def test_rows_that_meet_again_are_read_together(length, monkeypatch):
    """A new row has not read its source yet, whether that is as long as the others' or not."""
    passes = []

    def advance(runner, lane, tokens, real=HuggingFaceRunner._advance):
        passes.append(sorted(lane.rows))
        return real(runner, lane, tokens)

    monkeypatch.setattr(HuggingFaceRunner, "_advance", advance)
    ids, mask = sources(0, [4, 4, 4])
    runner = make_runner(MODELS["t5"], "hf", 20)
    runner.prefill(input_ids=ids, attention_mask=mask)
    for widths in ([1, 1, 1], [1, 3, 1], [2, 0, 1], [1, 1, 1]):
        runner.extend(torch.full((3, max(widths)), 5), widths)
    assert passes == [[0, 1, 2], [0, 2], [1], [0], [2], [0, 1], [2]]
    passes.clear()
    runner.restart([1], input_ids=ids[:1, :length], attention_mask=mask[:1, :length])
    runner.rollback([0, 0, 0])
    logits = runner.extend(torch.full((3, 1), 5), [1, 1, 1])
    assert passes == [[0, 2], [1]]
    for row, source in ((0, ids[:1]), (1, ids[:1, :length]), (2, ids[2:])):
        torch.testing.assert_close(logits[row], fresh(MODELS["t5"], source, [5]))
    passes.clear()
    runner.extend(torch.full((3, 1), 5), [1, 1, 1])
    assert passes == ([[0, 1, 2]] if length == 4 else [[0, 2], [1]])
