"""The engine of captured graphs on the CPU: recorded and replayed as on CUDA, it writes what the eager engine does."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

import bild
from bild import drafter
from bild.engine import make_runner
from bild.engine.t5 import graphs, shelf
from bild.engine.t5.fixed import bucket
from tests.bild.models import EOS, PAD, START, VOCAB, pair, sources, tiny_t5
from tests.bild.replayed import COUNTING, LENGTHS, Stopping, same, written

POLICIES = [
    bild.LargeOnly(),
    bild.SmallOnly(),
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4),
    bild.BigLittle(fallback=0.3, rollback=0, draft_length=5, verify_eos=True, adaptive=True),
    bild.Speculative(draft_length=4),
    bild.Speculative(draft_length=6, lenience=0.3, adaptive=True),
    bild.SpeculativeCascade(rule="opt", alpha=0.3, draft_length=4, adaptive=True),
    bild.SpeculativeCascade(rule="token_v1", alpha=0.3, draft_length=3, bonus="large"),
    bild.TokenCascade(alpha=0.6, draft_length=4),
    bild.SequenceCascade(threshold=-0.6),
    bild.OracleDiff(alpha=0.1),
    bild.OracleMixing(threshold=0.1),
]
AUTHORS = bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4, rule="authors")


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("policy", [*POLICIES, AUTHORS], ids=str)
def test_every_policy_writes_what_it_writes_step_by_step(tape, policy, do_sample):
    """Again and again: other sources, other lengths of them, the same recordings."""
    do_sample = do_sample and policy is not AUTHORS
    for seed, lengths in ((3, LENGTHS), (4, [2, 9, 3]), (5, [1, 1, 8])):
        assert same(policy, do_sample=do_sample, seed=seed, lengths=lengths)
    assert tape.replayed > tape.recorded > 0


@pytest.mark.parametrize("policy", POLICIES[2:8], ids=str)
def test_a_row_is_the_one_that_it_is_alone(tape, policy):
    ids, mask = sources(3, LENGTHS)

    def write(rows, seeds, **inputs):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        out = bild.generate(
            *pair(3), rows, policy=policy, max_new_tokens=12, do_sample=True, generator=generators, engine="graphs",
            **inputs,
        )  # fmt: skip
        return [[t.token_id for t in trace if t.reason != "discarded"] for trace in out.trace]

    together = write(ids, range(3), attention_mask=mask)
    assert together == [write(ids[row : row + 1, :length], [row])[0] for row, length in enumerate(LENGTHS)]


def test_a_draft_turn_is_one_replay_and_one_look_at_the_device(tape, monkeypatch):
    looks = []
    monkeypatch.setattr(drafter, "to_host", lambda *_: looks.append("a step"))
    out = written("graphs", bild.Speculative(draft_length=5), lengths=[4])
    first = tape.replayed
    again = written("graphs", bild.Speculative(draft_length=5), lengths=[4])
    (count,), (again_run,) = again.stats, again.small_steps_run
    drafts = sum(1 for turn in {t.round for t in again.trace[0]} if any(
        t.model == "small" for t in again.trace[0] if t.round == turn))  # fmt: skip
    assert looks == []
    assert tape.replayed - first == drafts + count.large_steps + 2  # and two encoders
    assert again_run == 5 * drafts >= count.small_steps
    assert out.sequences.equal(again.sequences)


def test_dropped_steps_are_told(tape):
    policy = bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=6)
    replayed, eager = written("graphs", policy), written("static", policy)
    assert eager.small_steps_run == [count.small_steps for count in eager.stats]
    assert all(run >= count.small_steps for run, count in zip(replayed.small_steps_run, replayed.stats, strict=True))
    assert sum(replayed.small_steps_run) > sum(eager.small_steps_run)


@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
def test_turns_longer_than_a_recording_go_on_with_the_next(tape, monkeypatch, at_once):
    monkeypatch.setattr(drafter, "STEPS_AT_ONCE", at_once)
    for policy in (COUNTING, bild.SmallOnly(), POLICIES[6]):
        assert same(policy, do_sample=True)


def test_a_rule_that_may_change_is_never_recorded(tape):
    class Moody:
        threshold = 0.0

        def __call__(self, small, n_drafted):
            return small.confidence < self.threshold

    policy = Stopping(draft_length=4, rule=Moody())
    for threshold in (0.0, 0.5, 2.0):
        Moody.threshold = threshold
        assert same(policy)
    Moody.threshold = 0.0
    out = written("graphs", policy)
    assert out.small_steps_run == [count.small_steps for count in out.stats]
    assert not out.drafted_at_once


@dataclass(frozen=True)
class Listing:
    """A field of it may change."""

    limits: list[int]

    def __call__(self, small, n_drafted):
        return n_drafted >= self.limits[0]


def test_a_field_that_may_change_is_never_recorded(tape):
    limits = [2]
    policy = Stopping(draft_length=5, rule=Listing(limits))
    for limit in (2, 4, 1):
        limits[0] = limit
        assert same(policy)


def test_policies_of_one_stop_rule_share_what_is_recorded(tape, monkeypatch):
    """In rotation, and more of them than recordings are kept."""
    steps, own = [], drafter.Chooser.of
    monkeypatch.setattr(drafter.Chooser, "of", lambda self, *asked: steps.append(asked) or own(self, *asked))
    policies = [
        *(bild.Speculative(draft_length=4, lenience=place / 20) for place in range(10)),
        *(bild.SpeculativeCascade(rule="chow", alpha=place / 10, draft_length=4, bonus="large") for place in range(8)),
        *(bild.BigLittle(fallback=stop, rollback=roll, draft_length=4) for stop in (0.25, 0.5) for roll in range(4)),
        *(bild.TokenCascade(alpha=alpha, draft_length=4) for alpha in (0.5, 0.75)),
        *(bild.BigLittle(fallback=stop, verify_eos=True, draft_length=4) for stop in (0.25, 0.5)),
    ]
    for _ in range(2):
        for policy in policies:
            assert written("graphs", policy, lengths=[4]).drafted_at_once
    assert len(policies) == 30
    assert len(steps) == 4 * 2 * 3  # done twice to be recorded, and never again: no rule, and two of them


class Forbids(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.index_fill(-1, input_ids[:, -1].unique(), -math.inf)


def test_processors_see_every_step(tape):
    policy, processors = bild.Speculative(draft_length=4), LogitsProcessorList([Forbids()])
    assert same(policy, logits_processor=processors, do_sample=True)
    out = written("graphs", policy, logits_processor=processors)
    assert out.small_steps_run == [count.small_steps for count in out.stats]
    assert not out.drafted_at_once
    assert written("graphs", policy).drafted_at_once


def test_what_else_a_call_may_bring(tape):
    """A shortlist, a prompt, heads of different width, several EOS, the first layers as the small model."""
    large = pair(0)[0]
    policy = bild.Speculative(draft_length=4)
    for shortlist in (range(3, 20), range(5, 22), range(3, 20)):
        assert same(policy, shortlist=list(shortlist), do_sample=True)
    assert same(policy, decoder_input_ids=torch.tensor([[0, 5, 6, 7, 8]] * 3))
    assert same(policy, models=(large, tiny_t5(7, layers=1, vocab=VOCAB + 5)), do_sample=True)
    assert same(policy, models=(tiny_t5(8, vocab=VOCAB + 5), tiny_t5(8, layers=1, vocab=VOCAB + 9)), do_sample=True)
    config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=[EOS, 12, 7])
    assert same(policy, generation_config=config)
    assert same(policy, models=(large, bild.EarlyExit(1)), do_sample=True)
    assert same(policy, models=(large, large))
    assert same(bild.LargeOnly(), models=(tiny_t5(9, layers=3, decoder_layers=1, gated=True), None))


def test_rows_take_other_sources(tape):
    large, small = pair(3)
    inputs = [sources(seed, [length])[0][0] for seed, length in enumerate([3, 2, 70, 5, 1, 140, 4])]
    policy = bild.BigLittle(fallback=0.4, rollback=1.0, draft_length=4)
    for index, out in bild.generate_many(
        large, small, inputs, policy=policy, batch_size=2, max_new_tokens=9, engine="graphs"
    ):
        alone = bild.generate(large, small, inputs[index][None], policy=policy, max_new_tokens=9, engine="static")
        assert out.sequences.equal(alone.sequences)
        assert out.stats == alone.stats
        assert out.small_steps_run[0] >= out.stats[0].small_steps


def test_two_calls_at_a_time_share_no_buffers(tape):
    large, small = pair(3)
    inputs = [sources(seed, [4])[0][0] for seed in range(6)]
    keywords = {"policy": bild.Speculative(draft_length=3), "batch_size": 2, "max_new_tokens": 9}
    alone = [out.sequences for _, out in bild.generate_many(large, small, inputs, engine="static", **keywords)]
    list(bild.generate_many(large, small, inputs, engine="graphs", **keywords))  # whose buffers are free now
    one = bild.generate_many(large, small, inputs, engine="graphs", **keywords)
    other = bild.generate_many(large, small, inputs[::-1], engine="graphs", **keywords)
    for (index, forwards), (_, backwards) in zip(one, other, strict=True):
        assert forwards.sequences.equal(alone[index])
        assert backwards.sequences.equal(alone[-1 - index])


@pytest.mark.parametrize("new_tokens", [28, 29, 30, 31])
def test_drafts_run_past_the_end_of_the_buffers(tape, new_tokens):
    """30 tokens behind the start fill buffers of 32 places, of which the last is nobody's."""
    config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=999)
    for policy in (bild.Speculative(draft_length=7), bild.BigLittle(fallback=0.3, rollback=1.0), bild.SmallOnly()):
        assert same(policy, generation_config=config, max_new_tokens=new_tokens)


def test_inference_mode_may_come_and_go(tape):
    policy = bild.Speculative(draft_length=4)
    expected = written("static", policy).sequences
    with torch.inference_mode():
        assert written("graphs", policy).sequences.equal(expected)
    assert written("graphs", policy).sequences.equal(expected)
    with torch.inference_mode():
        assert written("graphs", policy).sequences.equal(expected)


# What cannot be captured


@dataclass(frozen=True)
class Asking:
    """A stop rule that asks the host."""

    def __call__(self, small, n_drafted):
        return torch.full_like(n_drafted, bool(small.confidence[0] < 0.2), dtype=torch.bool)


def test_what_asks_the_host_runs_step_by_step_after_one_warning(tape):
    policy = Stopping(draft_length=4, rule=Asking())
    with pytest.warns(UserWarning, match=r"no graph could be captured, so steps run one by one: ") as caught:
        assert all(same(policy, lengths=lengths) for lengths in ([3], [4], [2]))
    assert len(caught) == 1


def test_what_cannot_be_captured_leaves_other_work_its_graphs(tape):
    with pytest.warns(UserWarning, match="no graph could be captured"):
        written("graphs", Stopping(draft_length=4, rule=Asking()), lengths=[4])
    policy = bild.Speculative(draft_length=4)
    written("graphs", policy, lengths=[4])
    before = tape.replayed
    again = written("graphs", policy, lengths=[4])
    turns = {entry.round for entry in again.trace[0] if entry.model == "small"}
    assert tape.replayed - before == len(turns) + again.stats[0].large_steps + 2


class NoMemory:
    def capture(self, work):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_without_memory_nothing_is_captured(tape, monkeypatch):
    monkeypatch.setattr(shelf, "capturer_of", lambda device: NoMemory())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert all(same(bild.Speculative(draft_length=4), do_sample=True, seed=seed) for seed in (3, 4))
    told = [str(one.message) for one in caught]
    assert (
        told
        == ["no graph could be captured, so steps run one by one: CUDA out of memory. Tried to allocate 2.00 GiB"] * 2
    )


def test_a_full_cache_refuses_before_it_overflows(tape):
    runner = make_runner(tiny_t5(7), "graphs", 3)
    runner.prefill(input_ids=torch.tensor([[5, 6, 1]]))
    runner.extend(torch.tensor([[0, 3]]), [2])
    with pytest.raises(ValueError, match="the cache holds 3 tokens a row, 4 are needed"):
        runner.extend(torch.tensor([[4, 5]]), [2])


def test_graphs_are_for_cuda_and_whole_models():
    with pytest.raises(
        ValueError, match=r"engine='graphs' captures CUDA graphs, the model is on cpu; use engine='stat"
    ):
        written("graphs", bild.LargeOnly(), models=(tiny_t5(7), None))
    with pytest.raises(ValueError, match=r"captured graphs, which take every token through every layer"):
        written("graphs", bild.Calm(), models=(tiny_t5(7), None))


def test_eager_is_another_name_of_static():
    policy = bild.Speculative(draft_length=4)
    assert written("eager", policy).sequences.equal(written("static", policy).sequences)


def test_buckets():
    assert [bucket(size) for size in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 8, 16]
    assert bucket(3, 16) == 16
    assert graphs.Size.of(2, 31, 65, range(2)) == graphs.Size(2, 32, 128, range(2))
    assert graphs.Size.of(2, 32, 16, range(2)) == graphs.Size(2, 64, 64, range(2))


@pytest.mark.parametrize(
    ("policy", "prompt", "new_tokens"),
    [(bild.Speculative(draft_length=40), 1, 20), (bild.BigLittle(fallback=0.0), 30, 1)],
    ids=str,
)
def test_drafts_that_could_never_be_written_are_not_prepared_for(tape, policy, prompt, new_tokens):
    ids, mask = sources(3, LENGTHS)
    begun = torch.tensor([[START, *range(2, prompt + 1)]] * len(ids)) % VOCAB
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outs = [
            bild.generate(
                *pair(3), ids, attention_mask=mask, decoder_input_ids=begun, policy=policy, max_new_tokens=new_tokens,
                engine=engine,
            ).sequences
            for engine in ("graphs", "static")
        ]  # fmt: skip
    assert outs[0].equal(outs[1])
