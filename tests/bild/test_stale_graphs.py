"""A recording never answers for another batch, other weights, or another dtype; and a wrong one would show."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from dataclasses import replace

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

import bild
from bild import drafter
from bild.engine import make_runner
from bild.engine.prepared import t5_halves
from bild.engine.t5.fixed import FixedCaches
from bild.engine.t5.shelf import MOST_IDLE, Shelf
from tests.bild.models import pair, read_by_transformers, sources, tiny_t5
from tests.bild.replayed import COUNTING, LENGTHS, same, written


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
    assert tape.recorded == recorded + 2  # the encoder, and the step
    assert not after.double().equal(before.double())
    assert float((after - logits("static")).norm() / after.norm()) < (0.02 if change is to_bfloat16 else 1e-5)


@pytest.fixture
def no_collection():
    """On a GPU too, memory is not what the collector waits for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@torch.no_grad()
@pytest.mark.usefixtures("no_collection")
def test_what_was_recorded_is_freed_with_the_weights_that_it_was_recorded_with(tape):
    model = tiny_t5(7, dtype=torch.float32)

    def prepared():
        written("graphs", bild.LargeOnly(), models=(model, None))
        return weakref.ref(t5_halves(model, int8=False)[1])

    first = prepared()
    assert first() is not None
    in_place(model)
    second = prepared()
    assert first() is None
    bild.forget(model)
    assert second() is None


@pytest.mark.usefixtures("no_collection")
def test_what_was_recorded_is_freed_with_the_model(tape):
    model = tiny_t5(7, dtype=torch.float32)
    written("graphs", bild.LargeOnly(), models=(model, None))
    prepared = weakref.ref(t5_halves(model, int8=False)[1])
    buffers = [weakref.ref(one) for one in prepared().shelf._idle]
    assert len(buffers) == 1
    del model
    assert prepared() is None
    assert [one() for one in buffers] == [None]


@pytest.mark.usefixtures("no_collection")
def test_buffers_that_come_back_to_weights_that_are_gone_are_freed(tape):
    model = tiny_t5(7, dtype=torch.float32)
    runner = make_runner(model, "graphs", 4)
    runner.prefill(input_ids=torch.tensor([[5, 6, 1]]))
    runner.extend(torch.tensor([[0, 3]]), [2])
    prepared, buffers = weakref.ref(t5_halves(model, int8=False)[1]), weakref.ref(runner._held)
    bild.forget(model)
    assert runner.extend(torch.tensor([[4]]), [1]).isfinite().all()  # what is under way goes on
    del runner
    assert buffers() is None
    assert prepared() is None


class Buffers:
    """Stands for a set of buffers: only one may hold it."""

    size = 1

    def __init__(self):
        self.hands = 0

    def forget_captures(self):
        assert self.hands == 0


def test_buffers_are_in_one_hand_whatever_thread_gives_them_back():
    kept, made, shared = Shelf(), [], []

    class Slow(Buffers):
        def __init__(self):
            super().__init__()
            made.append(self)

        @property
        def size(self):
            time.sleep(1e-4)  # the turn of another thread
            return 1

    def take_and_put():
        for _ in range(20):
            one = kept.take(1, Slow)
            one.hands += 1
            time.sleep(1e-4)
            shared.append(one.hands > 1)
            one.hands -= 1
            kept.put(one)

    threads = [threading.Thread(target=take_and_put) for _ in range(MOST_IDLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared == [False] * 20 * MOST_IDLE
    assert len(made) <= MOST_IDLE  # as many as there are hands: none was overlooked


def test_buffers_may_come_back_in_the_midst_of_a_call():
    """The collector runs where it will: a finalizer may put something while its own thread takes something else."""
    kept = Shelf()
    late, others = Buffers(), [Buffers() for _ in range(MOST_IDLE)]

    class Interrupting(int):
        def __eq__(self, other):
            if late not in kept._idle:
                kept.put(late)
            return int(self) == other

        __hash__ = int.__hash__

    for one in others:
        one.size = Interrupting(1)
        kept.put(one)
    taken = kept.take(1, Buffers)
    assert taken is others[-1]
    assert taken not in kept._idle
    assert kept._idle == [*others[:-1], late]


def kept_mask(self, tokens, positions, places, reach):
    step = ORIGINAL["at"](self, tokens, positions, places, reach)
    self.first = getattr(self, "first", step.bias)
    return replace(step, bias=self.first)


def kept_slots(self, tokens, positions, places, reach):
    step = ORIGINAL["at"](self, tokens, positions, places, reach)
    self.first = getattr(self, "first", step.slots)
    return replace(step, slots=self.first)


def noted_lengths(self, tokens, lengths, *others):
    self.noted = lengths
    name = "draft" if len(others) > 1 else "extend"
    return ORIGINAL[name](self, tokens, lengths, *others)


def baked_lengths(self, tokens, starts):
    noted = getattr(self, "noted", [0] * len(tokens))
    return ORIGINAL["_hidden"](self, tokens, torch.stack([torch.full((), length) for length in noted]))


def padding_of_the_first_call(self, rows, input_ids, mask, encoder):
    ORIGINAL["read"](self, rows, input_ids, None, encoder)


def sources_of_the_first_call(self, *read):
    if not getattr(self, "holds", False):
        ORIGINAL["read"](self, *read)
    self.holds = True


def numbers_of_the_first_turn(self, tokens, lengths, widths, asked, head):
    self.numbers = getattr(self, "numbers", asked.uniforms.clone())
    return ORIGINAL["draft"](self, tokens, lengths, widths, replace(asked, uniforms=self.numbers), head)


def what_is_drafted_forgotten(self, tokens, lengths, widths, asked, head):
    return ORIGINAL["draft"](self, tokens, lengths, widths, replace(asked, n_drafted=0), head)


ORIGINAL = {name: getattr(FixedCaches, name) for name in ("at", "_hidden", "read", "extend", "draft")}
MUTANTS = {
    "the mask of the first step": {"at": kept_mask},
    "the cache's places of the first step": {"at": kept_slots},
    "lengths as numbers of Python": {"extend": noted_lengths, "draft": noted_lengths, "_hidden": baked_lengths},
    "no padding": {"read": padding_of_the_first_call},
    "the first call's sources": {"read": sources_of_the_first_call},
    "the first turn's random numbers": {"draft": numbers_of_the_first_turn},
    "every stretch begins a turn": {"draft": what_is_drafted_forgotten},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_stale_shows(tape, monkeypatch, mutant):
    """The comparison above sees each way in which a recording can be wrong."""
    monkeypatch.setattr(drafter, "STEPS_AT_ONCE", 3)

    def all_same():
        policies = (bild.LargeOnly(), COUNTING, bild.SmallOnly())
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
    model, inputs, tokens, expected = read_by_transformers(dtype)
    runner = make_runner(model, "graphs", 6)
    runner.prefill(**inputs)
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
    models = {"large": tiny_t5(3), "small": tiny_t5(1003, like=tiny_t5(3))}
    policy, alone = bild.Speculative(draft_length=4), {"large": bild.LargeOnly(), "small": bild.SmallOnly()}[name]
    expected = written("graphs", alone, models=tuple(models.values())).sequences
    hidden = torch.full((3, 6, 16), torch.nan, dtype=torch.float64)
    runner = make_runner(models[name], "graphs", 13)
    runner.prefill(encoder_outputs=BaseModelOutput(hidden), attention_mask=sources(3, LENGTHS)[1])
    assert runner.extend(torch.zeros(3, 4, dtype=torch.long), [4, 4, 4]).isnan().all()
    del runner
    assert written("graphs", alone, models=tuple(models.values())).sequences.equal(expected)
    models[name].decoder.final_layer_norm.weight.fill_(torch.nan)
    with pytest.raises(
        ValueError, match=rf"the {name} model's logits are NaN or infinite in row 0 after \d written tok"
    ):
        written("graphs", policy, models=tuple(models.values()))
