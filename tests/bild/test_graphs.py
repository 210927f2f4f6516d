"""The engine of captured graphs on the CPU: recorded and replayed as on CUDA, it writes what the eager engine does."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

import bild
from bild import drafter
from bild.engine import make_runner
from bild.engine.t5 import graphs, shelf
from bild.engine.t5.fixed import FixedCaches, bucket
from tests.bild.models import EOS, PAD, START, VOCAB, pair, sources, tiny_t5
from tests.bild.tape import Tape

LENGTHS = [6, 1, 4]
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


@pytest.fixture
def tape(monkeypatch):
    """Recordings go to it, and no model has any from before."""
    tape = Tape()
    monkeypatch.setattr(shelf, "recorder_of", lambda device: tape)
    for model in (*pair(0), *pair(3)):
        bild.forget(model)
    yield tape
    for model in (*pair(0), *pair(3)):
        bild.forget(model)


def written(engine, policy, models=None, seed=3, lengths=LENGTHS, **keywords):
    large, small = pair(3) if models is None else models
    ids, mask = sources(seed, lengths)
    arguments = {"max_new_tokens": 12, "generator": torch.Generator().manual_seed(seed), "temperature": 1.3, **keywords}
    return bild.generate(large, small, ids, attention_mask=mask, policy=policy, engine=engine, **arguments)


def same(policy, **keywords) -> bool:
    eager, replayed = (written(engine, policy, **keywords) for engine in ("static", "graphs"))
    told = [[[(t.token_id, t.model, t.round, t.reason) for t in row] for row in out.trace] for out in (eager, replayed)]
    return eager.sequences.equal(replayed.sequences) and eager.stats == replayed.stats and told[0] == told[1]


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
    assert tape.replayed - first == drafts + count.large_steps
    assert again_run == 5 * drafts >= count.small_steps
    assert out.sequences.equal(again.sequences)


def test_dropped_steps_are_told(tape):
    policy = bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=6)
    replayed, eager = written("graphs", policy), written("static", policy)
    assert eager.small_steps_run == [count.small_steps for count in eager.stats]
    assert all(run >= count.small_steps for run, count in zip(replayed.small_steps_run, replayed.stats, strict=True))
    assert sum(replayed.small_steps_run) > sum(eager.small_steps_run)


@dataclass(frozen=True)
class Counting(bild.Speculative):
    """Stops by the number drafted."""

    stop_at: int = 4

    def stop(self, small_probs, n_drafted):
        return n_drafted >= self.stop_at


@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
def test_turns_longer_than_a_recording_go_on_with_the_next(tape, monkeypatch, at_once):
    monkeypatch.setattr(drafter, "STEPS_AT_ONCE", at_once)
    for policy in (Counting(draft_length=7), bild.SmallOnly(), POLICIES[6]):
        assert same(policy, do_sample=True)


def test_a_policy_that_may_change_is_never_recorded(tape):
    class Moody(bild.BigLittle):
        threshold = 0.0

        def stop(self, small_probs, n_drafted):
            return small_probs.amax(-1) < self.threshold

    policy = Moody(draft_length=4, rollback=1.0)
    for threshold in (0.0, 0.5, 2.0):
        Moody.threshold = threshold
        assert same(policy)
    Moody.threshold = 0.0
    out = written("graphs", policy)
    assert out.small_steps_run == [count.small_steps for count in out.stats]


@dataclass(frozen=True)
class Listing(bild.Speculative):
    """A field of it may change."""

    limits: list[int] = field(default_factory=lambda: [2])

    def stop(self, small_probs, n_drafted):
        return n_drafted >= self.limits[0]


def test_a_field_that_may_change_is_never_recorded(tape):
    policy = Listing(draft_length=5)
    for limit in (2, 4, 1):
        policy.limits[0] = limit
        assert same(policy)


class Forbids(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.index_fill(-1, input_ids[:, -1].unique(), -math.inf)


def test_processors_see_every_step(tape):
    policy, processors = bild.Speculative(draft_length=4), LogitsProcessorList([Forbids()])
    assert same(policy, logits_processor=processors, do_sample=True)
    out = written("graphs", policy, logits_processor=processors)
    assert out.small_steps_run == [count.small_steps for count in out.stats]


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
    inputs = [sources(seed, [length])[0][0] for seed, length in enumerate([3, 2, 20, 5, 1, 40, 4])]
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
    streams = [bild.generate_many(large, small, inputs, engine="graphs", **keywords) for _ in range(2)]
    for expected, *outs in zip(alone, *streams, strict=True):
        assert all(out.sequences.equal(expected) for _, out in outs)


def test_inference_mode_may_come_and_go(tape):
    policy = bild.Speculative(draft_length=4)
    expected = written("static", policy).sequences
    with torch.inference_mode():
        assert written("graphs", policy).sequences.equal(expected)
    assert written("graphs", policy).sequences.equal(expected)
    with torch.inference_mode():
        assert written("graphs", policy).sequences.equal(expected)


# Nothing stale


def test_another_batch_size_is_another_recording(tape):
    policy = bild.Speculative(draft_length=4)
    for lengths in ([3], LENGTHS, [2, 2], [5], LENGTHS, [1, 2, 3, 4, 5]):
        assert same(policy, lengths=lengths, do_sample=True)


def in_place(model):
    model.decoder.block[0].layer[2].DenseReluDense.wi.weight.mul_(2)


def through_data(model):
    model.decoder.block[1].layer[0].SelfAttention.q.weight.data.mul_(3)


def the_norms(model):
    model.decoder.final_layer_norm.weight.mul_(torch.linspace(0.2, 3, 16))


def the_head(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))


def scaled(model):
    model.config.scale_decoder_outputs = True


def to_bfloat16(model):
    model.to(torch.bfloat16)


def to_float64(model):
    model.to(torch.float64)


@torch.no_grad()
@pytest.mark.parametrize(
    "change", [in_place, through_data, the_norms, the_head, scaled, to_bfloat16, to_float64], ids=lambda f: f.__name__
)
def test_other_weights_or_another_dtype_are_never_stale(tape, change):
    model = tiny_t5(7, dtype=torch.float32)

    def logits(engine):
        runner = make_runner(model, engine, 4)
        runner.prefill(input_ids=torch.tensor([[5, 6, 1]]))
        return runner.extend(torch.tensor([[0, 3]]), [2])

    before = logits("graphs")
    assert logits("graphs").equal(before)
    recorded = tape.recorded
    change(model)
    after = logits("graphs")
    assert tape.recorded == recorded + 1
    assert not after.double().equal(before.double())
    assert float((after - logits("static")).norm() / after.norm()) < (0.02 if change is to_bfloat16 else 1e-5)


def kept_mask(self, tokens, positions, places, reach):
    step = ORIGINAL["at"](self, tokens, positions, places, reach)
    self.first = getattr(self, "first", step.bias)
    return replace(step, bias=self.first)


def kept_slots(self, tokens, positions, places, reach):
    step = ORIGINAL["at"](self, tokens, positions, places, reach)
    self.first = getattr(self, "first", step.slots)
    return replace(step, slots=self.first)


def noted_lengths(self, facts, tokens, width):
    self.noted = [row[0] for row in facts]
    return ORIGINAL["_fill"](self, facts, tokens, width)


def baked_lengths(self, tokens, starts):
    return ORIGINAL["_hidden"](self, tokens, torch.stack([torch.full((), length) for length in self.noted]))


def padding_of_the_first_call(self, rows, joined, valid):
    ORIGINAL["hold"](self, rows, joined, torch.ones_like(valid))


def sources_of_the_first_call(self, rows, joined, valid):
    if not getattr(self, "holds", False):
        ORIGINAL["hold"](self, rows, joined, valid)
    self.holds = True


def numbers_of_the_first_turn(self, tokens, lengths, widths, asked, head):
    self.numbers = getattr(self, "numbers", asked.uniforms.clone())
    return ORIGINAL["draft"](self, tokens, lengths, widths, replace(asked, uniforms=self.numbers), head)


def what_is_drafted_forgotten(self, tokens, lengths, widths, asked, head):
    return ORIGINAL["draft"](self, tokens, lengths, widths, replace(asked, n_drafted=0), head)


ORIGINAL = {name: getattr(FixedCaches, name) for name in ("at", "_fill", "_hidden", "hold", "draft")}
MUTANTS = {
    "the mask of the first step": {"at": kept_mask},
    "the cache's places of the first step": {"at": kept_slots},
    "lengths as numbers of Python": {"_fill": noted_lengths, "_hidden": baked_lengths},
    "no padding": {"hold": padding_of_the_first_call},
    "the first call's sources": {"hold": sources_of_the_first_call},
    "the first turn's random numbers": {"draft": numbers_of_the_first_turn},
    "every stretch begins a turn": {"draft": what_is_drafted_forgotten},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_stale_shows(tape, monkeypatch, mutant):
    """The comparison above sees each way in which a recording can be wrong."""
    monkeypatch.setattr(drafter, "STEPS_AT_ONCE", 3)

    def all_same():
        policies = (bild.LargeOnly(), Counting(draft_length=7), bild.SmallOnly())
        return all(same(policy, do_sample=True, seed=seed) for policy in policies for seed in (3, 4))

    for model in pair(3):
        bild.forget(model)
    assert all_same()
    for name, wrong in MUTANTS[mutant].items():
        monkeypatch.setattr(FixedCaches, name, wrong)
    for model in pair(3):
        bild.forget(model)
    assert not all_same()


# Numbers


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_precision_is_that_of_transformers(tape, dtype):
    """Norms and softmax in float32, float16's second feed-forward product too."""
    model = tiny_t5(2, width=64, vocab=500, gated=True, dtype=torch.float32).to(dtype)
    if dtype == torch.float16:
        for block in model.decoder.block:  # as transformers loads float16 models
            block.layer[2].DenseReluDense.wo.float()
    ids, mask = sources(4, [40, 17], vocab=500)
    tokens = torch.randint(2, 500, (2, 6), generator=torch.Generator().manual_seed(0))
    encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)
    expected = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=tokens).logits.float()
    runner = make_runner(model, "graphs", 6)
    runner.prefill(encoder_outputs=encoded, attention_mask=mask)
    first = runner.extend(tokens[:, :3], [3, 3])
    logits = torch.cat([first, runner.extend(tokens[:, 3:], [3, 3])], dim=1)
    assert logits.dtype == dtype
    limit = {torch.bfloat16: 0.02, torch.float16: 0.002, torch.float32: 1e-5}[dtype]
    assert float((logits.float() - expected).norm() / expected.norm()) < limit


def test_bfloat16_decodes(tape):
    large = tiny_t5(3, dtype=torch.bfloat16)
    small = tiny_t5(1003, layers=1, like=large, dtype=torch.bfloat16)
    out = written("graphs", bild.Speculative(draft_length=4), models=(large, small))
    assert all(math.isfinite(entry.confidence) for trace in out.trace for entry in trace)
    assert sum(count.accepted for count in out.stats) > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["large", "small"])
def test_numbers_that_are_none_are_told_and_not_left_behind(tape, name):
    models = dict(zip(("large", "small"), (tiny_t5(3), tiny_t5(1003, layers=1, like=tiny_t5(3))), strict=True))
    policy = bild.Speculative(draft_length=4)
    expected = written("graphs", policy, models=tuple(models.values())).sequences
    hidden = torch.full((3, 6, 16), torch.nan, dtype=torch.float64)
    runner = make_runner(models[name], "graphs", 13)
    runner.prefill(encoder_outputs=BaseModelOutput(hidden), attention_mask=sources(3, LENGTHS)[1])
    assert runner.extend(torch.zeros(3, 1, dtype=torch.long), [1, 1, 1]).isnan().all()
    del runner
    assert written("graphs", policy, models=tuple(models.values())).sequences.equal(expected)
    models[name].decoder.final_layer_norm.weight.fill_(torch.nan)
    with pytest.raises(
        ValueError, match=rf"the {name} model's logits are NaN or infinite in row 0 after \d written tok"
    ):
        written("graphs", policy, models=tuple(models.values()))


# What cannot be captured


@dataclass(frozen=True)
class Asking(bild.Speculative):
    """Its stop rule asks the host."""

    def stop(self, small_probs, n_drafted):
        return torch.full_like(n_drafted, bool(small_probs[0].amax() < 0.2), dtype=torch.bool)


def test_what_asks_the_host_runs_step_by_step_after_one_warning(tape):
    policy = Asking(draft_length=4)
    with pytest.warns(UserWarning, match=r"no graph could be captured, so steps run one by one: ") as caught:
        assert all(same(policy, lengths=lengths) for lengths in ([3], [4], [2]))
    assert len(caught) == 1


class NoMemory:
    def record(self, work):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_without_memory_nothing_is_captured(tape, monkeypatch):
    monkeypatch.setattr(shelf, "recorder_of", lambda device: NoMemory())
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
    assert graphs.Size.of(2, 31, 17, range(2)) == graphs.Size(2, 32, 32, range(2))
    assert graphs.Size.of(2, 32, 16, range(2)) == graphs.Size(2, 64, 16, range(2))


# The tape itself


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.add_(torch.tensor([1.0, 2.0])),
        lambda x: x.cpu(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
    ],
)
def test_the_tape_refuses_what_a_capture_refuses(work):
    with pytest.raises(RuntimeError):
        Tape().record(lambda: work(torch.ones(2)))


def test_the_tape_replays_tensors_and_bakes_numbers_in():
    tape, x, factor, out = Tape(), torch.ones(2), [3.0], torch.zeros(2)
    replay = tape.record(lambda: out.copy_((x * factor[0]).view(1, 2)[0].add_(1)))
    assert out.tolist() == [4, 4]
    x.fill_(2)
    factor[0] = 5.0
    replay()
    assert out.tolist() == [7, 7]
