"""What holds for every pair of models: the special cases that must equal one model alone, and independent rows."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

import bild
from bild.sampling import Sampler
from tests.bild.fakes import hashed, run, told
from tests.bild.models import EOS, PAD, START, VOCAB, pair, sources, tiny_t5

LENGTHS = [7, 2, 5, 1]
ENDS = GenerationConfig(eos_token_id=[EOS, 12])
"""Two EOS ids, so that rows end at different times; the rest is the model's own."""
EXACT = [
    bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.0, draft_length=3),
    bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.4),
    bild.BigLittle(rollback=0.0, verify_eos=True, fallback=1.0, draft_length=1),
    bild.BigLittle(fallback=1.01),
    bild.BigLittle(fallback=float("inf"), rule="authors"),
    bild.LargeOnly(),
]


def alone(model, ids, mask, config, max_new_tokens):
    """Transformers' own greedy search, ended and padded in the same way."""
    config = GenerationConfig(
        **{**config.to_diff_dict(), "max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
    )
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=config)


def variants() -> dict[str, tuple]:
    large, small = pair(0)
    wide = tiny_t5(21, width=32, gated=True, layers=3, decoder_layers=1)
    shallow = tiny_t5(22, layers=1, gated=True)
    tied = tiny_t5(23, tied=True)
    return {
        "twins": (large, small),
        "strangers": (wide, shallow),
        "tied large": (tied, tiny_t5(24, layers=1, tied=True, like=tied)),
        "mixed dtypes": (large, tiny_t5(25, layers=1, like=large, dtype=torch.float32)),
        "bfloat16 draft": (large, tiny_t5(26, layers=1, like=large, dtype=torch.bfloat16)),
        "wide draft": (large, tiny_t5(27, layers=1, vocab=VOCAB + 5)),
        "deep encoder": (tiny_t5(28, layers=3, decoder_layers=1), tiny_t5(29, layers=1, decoder_layers=2)),
    }


VARIANTS = variants()


@pytest.mark.parametrize("policy", EXACT, ids=str)
@pytest.mark.parametrize("seed", [0, 3, 5])
def test_the_exact_settings_write_what_transformers_writes_with_the_large_model(policy, seed):
    large, small = pair(seed)
    ids, mask = sources(seed, LENGTHS)
    out = bild.generate(
        large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=12, generation_config=ENDS
    )
    expected = alone(large, ids, mask, ENDS, 12)
    assert out.sequences.tolist() == expected.tolist()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_pair_is_exact_too(name):
    large, small = VARIANTS[name]
    ids, mask = sources(1, LENGTHS)
    policy = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.3, draft_length=4)
    out = bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=10)
    solo = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=10)
    assert out.sequences.tolist() == solo.sequences.tolist()
    if name != "deep encoder" and large.config.num_layers == large.config.num_decoder_layers:
        # The others crash in transformers' generate, which sizes the cache by the encoder.
        assert solo.sequences.tolist() == alone(large, ids, mask, large.generation_config, 10).tolist()


@pytest.mark.parametrize("seed", [0, 3, 5])
@pytest.mark.parametrize("with_large", [True, False])
def test_small_only_writes_what_transformers_writes_with_the_small_model(seed, with_large):
    large, small = pair(seed)
    ids, mask = sources(seed, LENGTHS)
    out = bild.generate(
        large if with_large else None, small, ids, attention_mask=mask, policy=bild.SmallOnly(), max_new_tokens=12,
        generation_config=ENDS,
    )  # fmt: skip
    assert out.sequences.tolist() == alone(small, ids, mask, ENDS, 12).tolist()
    for count in out.stats:
        assert (count.rounds, count.large_steps, count.fallbacks, count.rolled_back) == (1, 0, 0, 0)
        assert count.tokens == count.drafted == count.accepted == count.small_steps


def test_large_only_counts():
    large, _ = pair(3)
    ids, mask = sources(3, LENGTHS)
    out = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=12)
    for row, count in enumerate(out.stats):
        assert count.tokens == count.rounds == count.large_steps == len(out.trace[row])
        assert (count.drafted, count.accepted, count.small_steps, count.fallbacks) == (0, 0, 0, 0)


def test_bart_with_learned_positions():
    config = BartConfig(
        vocab_size=VOCAB, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=20, init_std=0.4,
        pad_token_id=0, bos_token_id=3, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        large = BartForConditionalGeneration(config).double().eval()
        small = BartForConditionalGeneration(config).double().eval()
    ids, mask = sources(2, LENGTHS, ids=4)
    for policy in (EXACT[0], EXACT[1], bild.LargeOnly()):
        out = bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=9)
        assert out.sequences.tolist() == alone(large, ids, mask, large.generation_config, 9).tolist()


# Rows are independent

MIXED = [
    bild.BigLittle(fallback=0.5, rollback=1.5, draft_length=3),
    bild.BigLittle(fallback=0.3, rollback=0.5, draft_length=5, verify_eos=True),
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4, rule="authors"),
    bild.LargeOnly(),
    bild.SmallOnly(),
]


@pytest.mark.parametrize(
    ("policy", "do_sample"),
    [(policy, mode) for policy in MIXED for mode in (False, True) if not (mode and policy == MIXED[2])],
    ids=str,
)
def test_a_batch_is_its_rows_one_by_one(policy, do_sample):
    large, small = pair(5)
    ids, mask = sources(5, LENGTHS)
    common = {
        "policy": policy, "max_new_tokens": 10, "generation_config": ENDS, "do_sample": do_sample, "temperature": 0.8,
        "top_p": 0.9,
    }  # fmt: skip
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    batch = bild.generate(large, small, ids, attention_mask=mask, generator=generators, **common)
    assert {count.tokens for count in batch.stats} != {10}
    for row, length in enumerate(LENGTHS):
        generator = torch.Generator().manual_seed(row)
        one = bild.generate(large, small, ids[row : row + 1, :length], generator=[generator], **common)
        tokens = one.stats[0].tokens
        assert batch.sequences[row, : 1 + tokens].tolist() == one.sequences[0].tolist()
        assert batch.sequences[row, 1 + tokens :].eq(PAD).all()
        assert batch.stats[row] == one.stats[0]
        assert told(batch.trace[row]) == told(one.trace[0])
        assert [entry.confidence for entry in batch.trace[row]] == pytest.approx(
            [entry.confidence for entry in one.trace[0]]
        )
        assert generators[row].get_state().equal(generator.get_state())


@settings(max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    batch_size=st.integers(1, 5),
    fallback=st.floats(0, 1.2),
    rollback=st.floats(0, 5),
    draft_length=st.integers(1, 7),
    max_new_tokens=st.integers(1, 12),
    verify_eos=st.booleans(),
    do_sample=st.booleans(),
)
def test_any_batch_is_its_rows_and_keeps_its_books(
    seed, batch_size, fallback, rollback, draft_length, max_new_tokens, verify_eos, do_sample
):
    vocab = 7
    larges = [hashed(seed + row, vocab) for row in range(batch_size)]
    smalls = [hashed(-seed - row - 1, vocab, twin=seed + row) for row in range(batch_size)]
    policy = bild.BigLittle(fallback=fallback, rollback=rollback, draft_length=draft_length, verify_eos=verify_eos)
    common = {"vocab_size": vocab, "max_new_tokens": max_new_tokens, "sampler": Sampler(do_sample)}

    def streams(rows):
        return [torch.Generator().manual_seed(seed + row) for row in rows]

    written, stats, traces, runners = run(
        larges, smalls, policy, generators=streams(range(batch_size)) if do_sample else None, **common
    )
    for row in range(batch_size):
        one = run(larges[row], smalls[row], policy, generators=streams([row]) if do_sample else None, **common)
        assert (written[row], stats[row], traces[row]) == (one[0][0], one[1][0], one[2][0])
        check_books(written[row], stats[row], traces[row], max_new_tokens)
        for runner in runners.values():
            assert runner.cached[row] == [START, *written[row]][: len(runner.cached[row])]


def check_books(written, count, trace, max_new_tokens):
    """Counts, trace and text tell one story."""
    kept = [entry for entry in trace if entry.reason != "discarded"]
    assert [entry.token_id for entry in kept] == written
    assert 1 <= len(written) == count.tokens <= max_new_tokens
    assert EOS not in written[:-1]
    tally = {reason: [entry.reason for entry in trace].count(reason) for reason in {entry.reason for entry in trace}}
    assert count.drafted == count.accepted + count.rolled_back
    assert count.accepted == tally.get("draft", 0)
    assert count.rolled_back == tally.get("discarded", 0)
    assert count.small_steps == count.drafted + count.fallbacks
    assert count.large_steps in (count.rounds, count.rounds - 1)
    assert count.tokens - count.accepted <= count.large_steps
    assert tally.get("fallback", 0) <= count.fallbacks
    assert [entry.round for entry in trace] == sorted(entry.round for entry in trace)
    assert {entry.round for entry in trace} == set(range(count.rounds))
    for entry in trace:
        assert entry.model == ("small" if entry.reason in ("draft", "discarded") else "large")
        assert 0 < entry.confidence <= 1


def test_one_generator_seeds_every_row_and_moves_on():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)

    def go(generator):
        return bild.generate(
            large, small, ids, attention_mask=mask, policy=MIXED[0], max_new_tokens=8, do_sample=True,
            generator=generator,
        ).sequences.tolist()  # fmt: skip

    generator = torch.Generator().manual_seed(7)
    first, second = go(generator), go(generator)
    assert first != second
    again = torch.Generator().manual_seed(7)
    assert [go(again), go(again)] == [first, second]
    torch.manual_seed(3)
    by_default = go(None)
    torch.manual_seed(3)
    assert go(None) == by_default


def test_temperature_zero_is_greedy():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    greedy = bild.generate(large, small, ids, attention_mask=mask, policy=MIXED[0], max_new_tokens=8)
    cold = bild.generate(
        large, small, ids, attention_mask=mask, policy=MIXED[0], max_new_tokens=8, do_sample=True, temperature=0.0
    )
    assert greedy.sequences.tolist() == cold.sequences.tolist()


def test_the_same_call_gives_the_same_answer_and_leaves_the_models_alone():
    large, small = pair(3)
    before = [parameter.clone() for parameter in itertools.chain(large.parameters(), small.parameters())]
    ids, mask = sources(3, LENGTHS)
    outs = [bild.generate(large, small, ids, attention_mask=mask, policy=MIXED[1], max_new_tokens=9) for _ in range(2)]
    assert outs[0].sequences.equal(outs[1].sequences)
    assert outs[0].stats == outs[1].stats
    assert all(map(torch.equal, before, itertools.chain(large.parameters(), small.parameters())))


class Collector:
    """A streamer as transformers has them: the prompt first, then tokens, then the end."""

    def __init__(self) -> None:
        self.prompt: list[int] | None = None
        self.puts: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        assert value.device.type == "cpu"
        if self.prompt is None:
            self.prompt = value.tolist()
            return
        assert value.dim() == 1
        assert len(value) > 0
        self.puts.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("policy", [policy for policy in MIXED if policy.uses_large], ids=str)
def test_a_streamer_gets_what_each_round_settles(policy):
    large, small = pair(0)
    ids, _ = sources(1, [6])
    streamer = Collector()
    out = bild.generate(large, small, ids, policy=policy, max_new_tokens=10, streamer=streamer)
    assert streamer.prompt == [[START]]
    assert list(itertools.chain(*streamer.puts)) == out.sequences[0, 1:].tolist()
    assert len(streamer.puts) == out.stats[0].rounds
    assert streamer.ended == 1


def test_a_streamer_gets_each_token_of_a_model_that_writes_alone():
    large, small = pair(0)
    ids, _ = sources(1, [6])
    for policy, drafts in ((bild.SmallOnly(), small), (bild.LargeOnly(), small), (bild.SmallOnly(), bild.EarlyExit(1))):
        streamer = Collector()
        out = bild.generate(large, drafts, ids, policy=policy, max_new_tokens=10, streamer=streamer)
        assert streamer.puts == [[token] for token in out.sequences[0, 1:].tolist()]
        assert len(streamer.puts) > 3


def test_a_streamer_gets_a_text_that_may_be_written_again_when_that_is_decided():
    large, small = pair(0)
    ids, _ = sources(1, [6])
    for threshold in (0.0, -1e9):
        streamer = Collector()
        policy = bild.SequenceCascade(threshold=threshold)
        out = bild.generate(large, small, ids, policy=policy, max_new_tokens=10, streamer=streamer)
        assert list(itertools.chain(*streamer.puts)) == out.sequences[0, 1:].tolist()
        assert out.stats[0].rolled_back == 0 or threshold == 0.0


def test_results_are_frozen():
    large, _ = pair(0)
    out = bild.generate(large, None, sources(0, [3])[0], policy=bild.LargeOnly(), max_new_tokens=1)
    for frozen in (out, out.stats[0], out.trace[0][0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.rounds = 1
