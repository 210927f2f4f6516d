"""Every family of models through transformers' own forward: what transformers' ``generate`` writes is the oracle."""

from __future__ import annotations

import json
import random
from itertools import chain

import pytest
import torch
from transformers.generation import GenerationMixin

import bild
from bild.checks import position_limit
from bild.engine import make_runner
from bild.engine.lanes import HuggingFaceRunner
from tests.bild.fakes import told
from tests.bild.families import (
    DECODER_ONLY,
    FAMILIES,
    LENGTHS,
    PAD,
    START,
    VOCAB,
    alone,
    cast,
    family_pair,
    inputs_of,
    make,
    one_row,
    prompt_width,
)

EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.0, draft_length=4)
LOSSLESS = [EXACT, bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.6), bild.BigLittle(fallback=1.01),
            bild.LargeOnly()]  # fmt: skip
MIXED = bild.BigLittle(fallback=0.5, rollback=1.5, draft_length=3)


# One model alone


@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_lossless_settings_write_what_transformers_writes_with_the_large_model(name, policy):
    large, small = family_pair(name)
    inputs = inputs_of(name, 0)
    out = bild.generate(large, small, **inputs, policy=policy, max_new_tokens=12)
    assert out.sequences.tolist() == alone(large, inputs)
    assert sum(count.rolled_back for count in out.stats) > 0 or policy != EXACT


@pytest.mark.parametrize("name", FAMILIES)
def test_small_only_writes_what_transformers_writes_with_the_small_model(name):
    _, small = family_pair(name)
    inputs = inputs_of(name, 0)
    out = bild.generate(None, small, **inputs, policy=bild.SmallOnly(), max_new_tokens=12)
    assert out.sequences.tolist() == alone(small, inputs)


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_the_output_says_who_read_a_row_apart_from_others(name, monkeypatch, tmp_path):
    large, small = family_pair(name)
    calls = []

    def extend(runner, tokens, widths, real=HuggingFaceRunner.extend):
        calls.append((runner._model, []))
        return real(runner, tokens, widths)

    def advance(runner, lane, tokens, real=HuggingFaceRunner._advance):
        calls[-1][1].append(list(lane.rows))
        return real(runner, lane, tokens)

    monkeypatch.setattr(HuggingFaceRunner, "extend", extend)
    monkeypatch.setattr(HuggingFaceRunner, "_advance", advance)
    inputs = inputs_of(name, 0)
    out = bild.generate(large, small, **inputs, policy=MIXED, max_new_tokens=12, shortlist=range(VOCAB))
    expected = [
        tuple(
            role
            for role, model in (("large", large), ("small", small))
            if any(of is model and len(lanes) > 1 and row in chain(*lanes) for of, lanes in calls)
        )
        for row in range(len(LENGTHS))
    ]
    assert out.parted == expected
    assert ("large", "small") in out.parted
    bild.write_json_lines(out, tmp_path / "trace.jsonl")
    told = [json.loads(line)["parted"] for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert told == list(map(list, out.parted))
    # Rows in step, or alone, have nobody to part from.
    assert bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=12).parted == [()] * 4
    assert bild.generate(large, small, **one_row(inputs, 0), policy=MIXED, max_new_tokens=12).parted == [()]


@pytest.mark.parametrize("name", FAMILIES)
def test_custom_generate_serves_every_family(name):
    large, small = family_pair(name)
    inputs = inputs_of(name, 0)
    for policy in (EXACT, MIXED):
        sequences = GenerationMixin.generate(
            large, **cast(inputs, large), custom_generate=bild.custom_generate, small=small, policy=policy,
            max_new_tokens=12, do_sample=False,
        )  # fmt: skip
        direct = bild.generate(large, small, **inputs, policy=policy, max_new_tokens=12)
        assert sequences.tolist() == direct.sequences.tolist()
    if name in DECODER_ONLY:
        output = large.generate(
            **cast(inputs, large), custom_generate=bild.custom_generate, small=small, policy=MIXED, max_new_tokens=3,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert type(output).__name__ == "GenerateDecoderOnlyOutput"


# Rows are independent


@pytest.mark.parametrize("do_sample", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_its_rows_one_by_one(name, do_sample):
    large, small = family_pair(name, 1)
    inputs = inputs_of(name, 1)
    common = {"policy": MIXED, "max_new_tokens": 10, "do_sample": do_sample, "temperature": 0.8, "top_p": 0.9}
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    batch = bild.generate(large, small, **inputs, generator=generators, **common)
    start = prompt_width(name, inputs)
    for row in range(4):
        generator = torch.Generator().manual_seed(row)
        alone_inputs = one_row(inputs, row)
        one = bild.generate(large, small, **alone_inputs, generator=[generator], **common)
        written = one.sequences[0, prompt_width(name, alone_inputs) :].tolist()
        assert batch.sequences[row, start : start + len(written)].tolist() == written
        assert batch.sequences[row, start + len(written) :].eq(PAD).all()
        assert batch.stats[row] == one.stats[0]
        assert told(batch.trace[row]) == told(one.trace[0])


@torch.no_grad()
def fresh(name, model, row_inputs, tokens):
    """Logits of one unpadded row's tokens without any cache."""
    if name in DECODER_ONLY:
        ids = torch.cat([row_inputs["input_ids"], torch.tensor([tokens])], dim=1)
        return model(input_ids=ids, use_cache=False).logits[0, row_inputs["input_ids"].shape[1] :]
    return model(**cast(row_inputs, model), decoder_input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_program_equals_a_fresh_forward(name, seed):
    """Rows extend by their own widths and roll back to their own lengths; every number is compared."""
    dice = random.Random(seed)
    model = family_pair(name, seed)[0]
    inputs = inputs_of(name, seed)
    runner = make_runner(model, "hf", 100)
    runner.prefill(**inputs)
    close = {"rtol": 1e-9, "atol": 1e-9} if model.dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    before = prompt_width(name, inputs) if name in DECODER_ONLY else 0
    held = [[] for _ in LENGTHS]
    if before > 0:
        assert runner.lengths == [before - 1] * 4
        runner.extend(inputs["input_ids"][:, -1:], [1] * 4)
    for _ in range(8):
        if dice.random() < 0.4 and any(held):
            held = [tokens[: dice.randint(max(0, len(tokens) - 5), len(tokens))] for tokens in held]
            runner.rollback([before + len(tokens) for tokens in held])
        else:
            widths = [dice.choice([0, 1, 2, 4]) for _ in LENGTHS]
            widths[dice.randrange(4)] = 3
            tokens = torch.tensor([[dice.randrange(3, VOCAB) for _ in range(max(widths))] for _ in LENGTHS])
            logits = runner.extend(tokens, widths)
            for row, width in enumerate(widths):
                held[row] += tokens[row, :width].tolist()
                if width > 0:
                    expected = fresh(name, model, one_row(inputs, row), held[row])[-width:]
                    torch.testing.assert_close(logits[row, :width], expected, **close)
        assert runner.lengths == [before + len(tokens) for tokens in held]


@torch.no_grad()
@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_rows_that_stay_together_are_one_forward_whose_logits_are_not_copied(name, monkeypatch):
    model = make(name, 1, 5)
    inputs = inputs_of(name, 5)
    runner = make_runner(model, "hf", 100)
    runner.prefill(**inputs)
    outputs, forward = [], model.forward
    monkeypatch.setattr(
        model, "forward", lambda *args, **kwargs: outputs.append(forward(*args, **kwargs)) or outputs[-1]
    )
    logits = runner.extend(torch.full((4, 2), 5), [2, 2, 2, 2])
    assert len(outputs) == 1
    assert logits is outputs[0].logits
    assert runner.extend(torch.full((4, 2), 5), [2, 2, 0, 2]).shape == logits.shape
    assert len(outputs) == 2


@torch.no_grad()
def test_rows_restarted_in_any_order_stand_in_their_own_places():
    model = make("bart", 1, 5)
    inputs = inputs_of("bart", 5)
    runner = make_runner(model, "hf", 100)
    runner.prefill(**inputs_of("bart", 6))
    order = [2, 0, 3, 1]
    runner.restart(order, **inputs)
    tokens = torch.tensor([[START, 5], [START, 6], [START, 7], [START, 8]])
    logits = runner.extend(tokens, [2] * 4)
    for place, row in enumerate(order):
        expected = fresh("bart", model, one_row(inputs, place), tokens[row].tolist())
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-9)


# Positions


def test_computed_positions_have_no_end():
    """NLLB's table grows; rotary positions need none."""
    for name in ("nllb", "llama", "gemma2"):
        large, small = family_pair(name)
        inputs = inputs_of(name, 2)
        assert position_limit(large.get_decoder()) is None
        out = bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=50)
        assert max(count.tokens for count in out.stats) > 40
        assert out.sequences.tolist() == alone(large, inputs, max_new_tokens=50)


@pytest.mark.parametrize("name", ["bart", "mbart", "marian", "pegasus", "whisper", "gpt2"])
def test_embedded_positions_end(name):
    large, small = family_pair(name)
    inputs = inputs_of(name, 2)
    start = prompt_width(name, inputs)
    room = 40 - start
    assert position_limit(large.get_decoder()) == 40
    with pytest.raises(
        ValueError, match=rf"max_new_tokens={room + 1} after {start} .* 40 positions; use at most {room}"
    ):
        bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=room + 1)
    bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=room)


def test_a_source_longer_than_the_encoders_positions():
    large, small = family_pair("bart")
    with pytest.raises(ValueError, match="input_ids hold 41 tokens a row, the large model's encoder has 40 positions"):
        bild.generate(large, small, **inputs_of("bart", 0, [41]), policy=EXACT)
