"""Early exit: the large model's first layers draft for it. Nothing is computed twice, and nothing else changes."""

from __future__ import annotations

import random

import pytest
import torch

import bild
from bild.engine import make_early_exit
from bild.engine.t5.early_exit import _Small
from bild.engine.t5.state import T5State
from tests.bild.families import FAMILIES, alone, family_pair, inputs_of, make
from tests.bild.models import EOS, START, VOCAB, pair, sources, tiny_t5

LENGTHS = [6, 1, 4]
MODELS = {
    "t5": tiny_t5(3, layers=3),
    "gated": tiny_t5(2, gated=True, layers=1, decoder_layers=3),
    "tied": tiny_t5(1, tied=True),
}
EXACT = bild.BigLittle(fallback=0.2, rollback=0, draft_length=4, verify_eos=True)
MIXED = bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4)
POLICIES = [MIXED, EXACT, bild.BigLittle(rule="authors", fallback=0.5, rollback=1.0, draft_length=4), bild.SmallOnly()]


def write(model, policy, *, engine="static", layers=1, seed=3, **keywords):
    ids, mask = sources(seed, LENGTHS)
    return bild.generate(
        model, bild.EarlyExit(layers), ids, attention_mask=mask, policy=policy, max_new_tokens=12, engine=engine,
        **keywords,
    )  # fmt: skip


@torch.no_grad()
def fresh(model, ids: torch.Tensor, tokens: list[int], layer: int) -> torch.Tensor:
    """Logits (T, V) of one unpadded row after a decoder layer, without any cache, from what transformers' own layers
    pass on."""
    passed_on = []
    hook = model.decoder.block[layer - 1].register_forward_hook(lambda *call: passed_on.append(call[2][0]))
    model(input_ids=ids, decoder_input_ids=torch.tensor([tokens]), use_cache=False)
    hook.remove()
    hidden = model.decoder.final_layer_norm(passed_on[0])
    scale = model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0
    return model.lm_head(hidden * scale)[0]


@torch.no_grad()
def play(model, engine: str, layer: int, seed: int, steps: int) -> None:
    """A random program on both runners: rows are drafted, verified and rolled back, each by its own width."""
    dice = random.Random(seed)
    ids, mask = sources(seed, LENGTHS)
    depth = len(model.decoder.block)
    large, small = make_early_exit(model, engine, 100, layer)
    for runner in (large, small):
        runner.prefill(input_ids=ids, attention_mask=mask)
    texts = [[dice.randrange(1, VOCAB) for _ in range(60)] for _ in LENGTHS]
    for _ in range(steps):
        if dice.random() < 0.3:
            kept = [dice.randint(max(0, length - 3), length) for length in small.lengths]
            texts = [
                text[:length] + [dice.randrange(1, VOCAB) for _ in range(60)]
                for text, length in zip(texts, kept, strict=True)
            ]
            for runner in (large, small):
                runner.rollback([min(one) for one in zip(runner.lengths, kept, strict=True)])
            continue
        runner, at = dice.choice([(large, depth), (small, layer)])
        before, widths = list(runner.lengths), [dice.choice([0, 1, 1, 2, 4]) for _ in LENGTHS]
        widths[dice.randrange(len(widths))] = dice.randint(1, 3)
        fed = [text[n : n + max(widths)] for text, n in zip(texts, before, strict=True)]
        logits = runner.extend(torch.tensor(fed), widths)
        assert runner.lengths == [n + width for n, width in zip(before, widths, strict=True)]
        for row, (n, width) in enumerate(zip(before, widths, strict=True)):
            if width > 0:
                expected = fresh(model, ids[row : row + 1, : LENGTHS[row]], texts[row][: n + width], at)[-width:]
                torch.testing.assert_close(logits[row, :width], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize(("name", "layer"), [("t5", 1), ("t5", 2), ("gated", 2), ("tied", 1)])
def test_every_program_equals_a_fresh_forward_of_either_depth(name, layer, engine):
    for seed in range(4):
        play(MODELS[name], engine, layer, seed, steps=10)


@pytest.mark.parametrize("engine", ["static", "hf"])
def test_a_shortlist_is_for_the_first_layers_head(engine):
    model = MODELS["t5"]
    expected = write(model, bild.LargeOnly(), engine=engine).sequences
    listed = expected.unique()
    assert len(listed) < VOCAB
    ids, mask = sources(3, LENGTHS)
    large, small = make_early_exit(model, engine, 100, 2, listed)
    whole_large, whole = make_early_exit(model, engine, 100, 2)
    for runner in (large, whole_large, small, whole):
        runner.prefill(input_ids=ids, attention_mask=mask)
    tokens, widths = torch.full((3, 2), 5), [2, 2, 2]
    with torch.no_grad():
        torch.testing.assert_close(small.extend(tokens, widths), whole.extend(tokens, widths)[..., listed])
        torch.testing.assert_close(large.extend(tokens, widths), whole_large.extend(tokens, widths))
    assert (large.listed, small.listed.tolist()) == (None, listed.tolist())
    out = write(model, EXACT, engine=engine, layers=2, shortlist=listed.tolist())
    assert {t.token_id for row in out.trace for t in row if t.model == "small"} <= set(listed.tolist())
    assert sum(stats.accepted for stats in out.stats) > 0
    assert out.sequences.equal(expected)


@pytest.mark.parametrize("engine", ["static", "hf", "static+int8"])
@pytest.mark.parametrize("do_sample", [False, True])
def test_never_drafting_is_the_large_model(engine, do_sample):
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    outs = [
        write(MODELS["t5"], policy, engine=engine, do_sample=do_sample, generator=generator)
        for policy, generator in zip([bild.BigLittle(fallback=1.1), bild.LargeOnly()], generators, strict=True)
    ]
    assert outs[0].sequences.equal(outs[1].sequences)


@pytest.mark.parametrize("engine", ["static", "hf", "static+int8"])
@pytest.mark.parametrize(("name", "layers"), [("t5", 1), ("t5", 2), ("gated", 1)])
@pytest.mark.parametrize("policy", [EXACT, bild.Speculative(draft_length=3)], ids=["BigLittle", "Speculative"])
def test_lossless_settings_write_what_the_large_model_writes(policy, name, layers, engine):
    rolled_back = accepted = 0
    for seed in range(3):
        out = write(MODELS[name], policy, layers=layers, engine=engine, seed=seed)
        assert out.sequences.equal(write(MODELS[name], bild.LargeOnly(), engine=engine, seed=seed).sequences)
        rolled_back += sum(row.rolled_back for row in out.stats)
        accepted += sum(row.accepted for row in out.stats)
    assert accepted > 0
    assert rolled_back > 0


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_both_engines_write_the_same(policy, do_sample):
    if do_sample and policy == POLICIES[2]:
        with pytest.raises(ValueError, match="greedy only"):
            write(MODELS["t5"], policy, do_sample=True)
        return
    for seed in range(3):
        outs = [
            write(
                MODELS["t5"], policy, engine=engine, seed=seed, layers=2, do_sample=do_sample,
                generator=torch.Generator().manual_seed(seed),
            )
            for engine in ("static", "hf")
        ]  # fmt: skip
        assert outs[0].sequences.equal(outs[1].sequences)
        assert outs[0].stats == outs[1].stats


def test_alone_it_writes_what_its_layers_write():
    model = MODELS["t5"]
    ids, _ = sources(3, LENGTHS)
    out = write(model, bild.SmallOnly())
    for row, length in enumerate(LENGTHS):
        text = [START]
        while len(text) < 13 and text[-1] != EOS:
            text.append(int(fresh(model, ids[row : row + 1, :length], text, 1)[-1].argmax()))
        assert out.sequences[row, : len(text)].tolist() == text


class _Reader:
    """Notes which texts each decoder layer reads: the tokens of a row up to each one that passes through it."""

    def __init__(self, monkeypatch) -> None:
        self.read: list[tuple[int, tuple[int, ...]]] = []
        self._texts: dict[int, int] = {}
        step, run = T5State.step, T5State.run

        def noted_step(state, tokens, lengths, widths):
            made = step(state, tokens, lengths, widths)
            if made.tokens.numel() > 0:
                self._texts.update(zip(made.slots.tolist(), made.tokens.tolist(), strict=True))
            return made

        def noted_run(state, hidden, made, layers):
            for slot in made.slots.tolist():
                row = slot - slot % state._capacity
                text = (row, *(self._texts[one] for one in range(row, slot + 1)))
                self.read += [(layer, text) for layer in layers]
            return run(state, hidden, made, layers)

        monkeypatch.setattr(T5State, "step", noted_step)
        monkeypatch.setattr(T5State, "run", noted_run)


@pytest.mark.parametrize("policy", [MIXED, EXACT, bild.BigLittle(fallback=0, rollback=0.5, draft_length=3)], ids=str)
def test_no_layer_reads_a_text_twice(policy, monkeypatch):
    model = MODELS["t5"]
    reader = _Reader(monkeypatch)
    out = write(model, policy, layers=2)
    assert sum(row.accepted for row in out.stats) > 0
    assert len(set(reader.read)) == len(reader.read)
    by_layer = [{text for layer, text in reader.read if layer == place} for place in range(3)]
    assert by_layer[0] == by_layer[1] >= by_layer[2]
    for row, trace in enumerate(out.trace):
        text = [START] + [token.token_id for token in trace if token.reason != "discarded"]
        expected = {(row * 13, *text[:length]) for length in range(1, len(text))}
        assert expected <= by_layer[0]


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize("policy", [MIXED, bild.SmallOnly()], ids=str)
def test_rows_that_begin_anew_write_what_they_write_alone(policy, engine):
    lengths = [4, 9, 1, 6, 6, 2, 12]
    ids, mask = sources(3, lengths)
    inputs = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    keywords = {"policy": policy, "max_new_tokens": 12, "engine": engine}
    many = bild.generate_many(MODELS["t5"], bild.EarlyExit(1), inputs, batch_size=3, **keywords)
    for (_, out), row in zip(many, inputs, strict=True):
        alone = bild.generate(MODELS["t5"], bild.EarlyExit(1), torch.tensor([row]), **keywords)
        assert out.sequences.equal(alone.sequences)
        assert out.stats == alone.stats


@torch.no_grad()
@torch.no_grad()
def pair_that_read(drafted: list[int]):
    """Both runners after the start token and one more, the small one after these as well."""
    large, small = make_early_exit(tiny_t5(7), "static", 20, 1)
    for runner in (large, small):
        runner.prefill(input_ids=torch.tensor([[5, 6, 1], [5, 4, 1]]))
    assert large.extend(torch.tensor([[0, 4], [0, 4]]), [2, 2]).shape == (2, 2, VOCAB)
    assert small.lengths == [2, 2]  # the large one reads for both
    small.extend(torch.tensor([drafted] * 2), [len(drafted), 0])
    return large, small


@torch.no_grad()
def test_runners_that_were_told_apart_refuse():
    others = "row 0: after 2 tokens the large model is shown others than the small one has read; roll both back"
    large, small = pair_that_read([4])
    small.extend(torch.tensor([[4], [0]]), [1, 0])  # again what it has read
    with pytest.raises(ValueError, match=others):
        large.extend(torch.tensor([[4, 6, 7], [8, 0, 0]]), [3, 1])

    large, small = pair_that_read([6, 7, 8])
    large.extend(torch.tensor([[6, 7], [8, 0]]), [2, 1])
    large.rollback([2, 2])  # and not the small one
    with pytest.raises(ValueError, match=others):
        large.extend(torch.tensor([[9, 9], [9, 9]]), [1, 2])

    large, small = pair_that_read([6])
    small.rollback([1, 2])  # and not the large one
    behind = "row 0: the small model stands at 1 tokens and the large one, .* at 2; roll both back"
    for runner in (small, large):
        with pytest.raises(ValueError, match=behind):
            runner.extend(torch.tensor([[9], [9]]), [1, 0])
        runner.extend(torch.tensor([[0], [9]]), [0, 1])  # the other row goes on


def test_prefill_forgets_everything():
    ids, mask = sources(9, LENGTHS)
    model = MODELS["t5"]
    large, small = make_early_exit(model, "static", 20, 1)
    assert isinstance(small, _Small)
    for runner in (large, small):
        runner.prefill(input_ids=ids, attention_mask=mask)
    small.extend(torch.full((3, 2), 5), [2, 1, 0])
    other, _ = sources(10, [5, 5])
    for runner in (large, small):
        runner.prefill(input_ids=other)
    assert small.lengths == large.lengths == [0, 0]
    logits = large.extend(torch.zeros(2, 1, dtype=torch.long), [1, 1])
    torch.testing.assert_close(logits[1], fresh(model, other[1:], [0], 3), rtol=1e-9, atol=1e-9)
    assert small.lengths == [1, 1]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_drafts_with_its_own_first_layer(name):
    large, _ = family_pair(name)
    inputs = inputs_of(name, 0)
    before = [id(weight) for weight in large.parameters()]
    out = bild.generate(large, bild.EarlyExit(1), **inputs, policy=EXACT, max_new_tokens=12)
    assert out.sequences.tolist() == alone(large, inputs)
    assert [id(weight) for weight in large.parameters()] == before


@pytest.mark.parametrize("name", ["bart", "gpt2", "llama"])
def test_what_drafts_there_is_that_layer(name):
    large = make(name, 3, 5)
    small = make(name, 2, 5)
    small.load_state_dict(large.state_dict(), strict=False)
    inputs = inputs_of(name, 0)
    out = bild.generate(large, bild.EarlyExit(2), **inputs, policy=bild.SmallOnly(), max_new_tokens=12)
    assert out.sequences.tolist() == alone(small, inputs)


def test_through_generate_of_transformers():
    model = MODELS["t5"]
    ids, mask = sources(3, LENGTHS)
    keywords = {"custom_generate": bild.custom_generate, "policy": MIXED, "max_new_tokens": 12, "do_sample": False}
    sequences = model.generate(input_ids=ids, attention_mask=mask, small=bild.EarlyExit(1), **keywords)
    assert sequences.equal(write(model, MIXED).sequences)


@pytest.mark.parametrize("layers", [0, -1, 1.0, True, "1"])
def test_layers_is_a_count(layers):
    with pytest.raises(ValueError, match=f"layers={layers} must be a whole number >= 1"):
        bild.EarlyExit(layers)


def test_what_cannot_exit_early_is_told():
    large, _ = pair(0)
    with pytest.raises(ValueError, match=r"EarlyExit\(layers=2\) must leave out a layer, but .* decoder has 2"):
        write(large, MIXED, layers=2)
    with pytest.raises(ValueError, match="drafts for a large model; pass large="):
        write(None, MIXED)
    with pytest.raises(ValueError, match="cannot run this model"):
        bild.generate(
            family_pair("bart")[0], bild.EarlyExit(1), **inputs_of("bart", 0), policy=MIXED, engine="static",
            max_new_tokens=9,
        )  # fmt: skip
    strange = tiny_t5(5)
    strange.decoder.stages = strange.decoder._modules.pop("block")
    with pytest.raises(ValueError, match="finds no list of layers in the decoder of T5ForConditionalGeneration"):
        write(strange, MIXED)
