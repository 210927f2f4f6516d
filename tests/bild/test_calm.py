"""CALM against a naive twin: every step of every token computed anew with transformers' modules, one row at a time."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

import bild
from bild.engine import make_dynamic_depth
from bild.engine.t5.state import T5State
from tests.bild.families import family_pair, inputs_of
from tests.bild.models import EOS, START, VOCAB, sources, tiny_t5

LENGTHS = [6, 1, 4]
NEW = 10
MODELS = {"t5": tiny_t5(3, layers=4), "gated": tiny_t5(2, gated=True, layers=1, decoder_layers=3)}
RULES = [
    bild.Calm(threshold=0.5),
    bild.Calm(threshold=0.7, decay=None),
    bild.Calm(confidence="cosine", threshold=0.99, decay=0.1),
    bild.Calm(confidence="saturation", threshold=0.85, decay=None),
    bild.Calm(threshold=0.3, decay=1.0, min_layers=2),
]


def attention(module, queries: torch.Tensor, memory: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(1, D) queries over (T, D) states, by hand."""
    heads = module.n_heads

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), heads, -1).transpose(0, 1)

    scores = split(module.q(queries)) @ split(module.k(memory)).transpose(1, 2)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return module.o((weights @ split(module.v(memory))).transpose(0, 1).reshape(len(queries), -1))


def confidence(rule: bild.Calm, hidden: torch.Tensor, below: torch.Tensor, logits: torch.Tensor) -> float:
    if rule.confidence == "softmax":
        first, second = sorted(logits.softmax(-1).tolist())[-1:-3:-1]
        return first - second
    if rule.confidence == "cosine":
        return float(hidden @ below / math.sqrt(float(hidden @ hidden) * float(below @ below)))
    return 1 - math.sqrt(float((hidden - below) @ (hidden - below)) / float(hidden @ hidden))


class Twin:
    """One row. ``states[l][s]``: what layer l reads of position s, the state it left with if it has left below."""

    def __init__(self, model, rule: bild.Calm, ids: torch.Tensor, limit: int) -> None:
        self.model, self.rule, self.limit = model, rule, limit
        self.source = model.get_encoder()(ids).last_hidden_state[0]
        self.states: list[list[torch.Tensor]] = [[] for _ in model.decoder.block]
        self.layers: list[int] = []

    @torch.no_grad()
    def read(self, token: int) -> torch.Tensor:
        """(V,) logits after one more token."""
        blocks, place = self.model.decoder.block, len(self.layers)
        hidden, inside = self.model.shared.weight[token], True
        for layer, block in enumerate(blocks):
            self.states[layer].append(hidden)
            if not inside:
                continue
            own, cross, feed = block.layer
            memory = own.layer_norm(torch.stack(self.states[layer]))
            bias = blocks[0].layer[0].SelfAttention.compute_bias(place + 1, place + 1)[0, :, -1:]
            below = hidden
            hidden = hidden + attention(own.SelfAttention, memory[-1:], memory, bias)[0]
            hidden = hidden + attention(cross.EncDecAttention, cross.layer_norm(hidden[None]), self.source, None)[0]
            hidden = hidden + feed.DenseReluDense(feed.layer_norm(hidden[None]))[0]
            logits, took = self.model.lm_head(self.model.decoder.final_layer_norm(hidden)), layer + 1
            threshold = self.rule.threshold
            if self.rule.decay is not None:
                threshold = min(1, 0.9 * threshold + 0.1 * math.exp(-self.rule.decay * place / self.limit))
            may_leave = took >= max(self.rule.min_layers, 1 if self.rule.confidence == "softmax" else 2)
            inside = not (may_leave and confidence(self.rule, hidden, below, logits) >= threshold)
        self.layers.append(took)
        return logits


def expected(model, rule: bild.Calm, ids: torch.Tensor) -> tuple[list[int], list[int]]:
    """The greedy text of one row and the layers of each token."""
    twin, text = Twin(model, rule, ids, NEW), [START]
    while len(text) <= NEW and (len(text) == 1 or text[-1] != EOS):
        text.append(int(twin.read(text[-1]).argmax()))
    return text[1:], twin.layers


def write(model, rule, seed, **keywords):
    ids, mask = sources(seed, LENGTHS)
    return bild.generate(
        model, None, ids, attention_mask=mask, policy=rule, max_new_tokens=NEW,
        **{"engine": "static"} | keywords,
    )  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_text_and_layers_are_those_of_the_naive_twin(rule, name):
    model, seen = MODELS[name], set()
    for seed in range(3):
        ids, _ = sources(seed, LENGTHS)
        out = write(model, rule, seed)
        for row, length in enumerate(LENGTHS):
            tokens, layers = expected(model, rule, ids[row : row + 1, :length])
            assert [token.token_id for token in out.trace[row]] == tokens
            assert [token.layers for token in out.trace[row]] == layers
            seen |= set(layers)
    assert len(seen) > 1


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_any_program_of_rows_and_rollbacks_gives_the_twins_logits(rule):
    model, dice = MODELS["t5"], random.Random(1)
    ids, mask = sources(5, LENGTHS)
    runner = make_dynamic_depth(model, "static", 31, rule)
    runner.prefill(input_ids=ids, attention_mask=mask)
    held: list[list[int]] = [[] for _ in LENGTHS]
    for _ in range(12):
        if dice.random() < 0.3 and any(held):
            held = [tokens[: dice.randint(max(0, len(tokens) - 3), len(tokens))] for tokens in held]
            runner.rollback([len(tokens) for tokens in held])
            continue
        widths = [dice.choice([0, 1, 1, 2]) for _ in LENGTHS]
        widths[dice.randrange(3)] = 1
        tokens = [[dice.randrange(1, VOCAB) for _ in range(max(widths))] for _ in LENGTHS]
        logits = runner.extend(torch.tensor(tokens), widths)
        held = [old + new[:width] for old, new, width in zip(held, tokens, widths, strict=True)]
        for row, width in enumerate(widths):
            twin = Twin(model, rule, ids[row : row + 1, : LENGTHS[row]], 30)
            wanted = [twin.read(token) for token in held[row]]
            assert runner.depths[row] == twin.layers
            for place in range(width):
                found = logits[row, place]
                torch.testing.assert_close(found, wanted[len(held[row]) - width + place], rtol=1e-6, atol=1e-6)
    assert runner.lengths == [len(tokens) for tokens in held]


@pytest.mark.parametrize("engine", ["static", "static+int8"])
@pytest.mark.parametrize("do_sample", [False, True])
def test_who_never_leaves_is_the_large_model(engine, do_sample):
    outs = [
        write(MODELS["t5"], rule, 3, engine=engine, do_sample=do_sample, generator=torch.Generator().manual_seed(1))
        for rule in (bild.Calm(threshold=1.1), bild.Calm(min_layers=9, threshold=0), bild.LargeOnly())
    ]
    assert outs[0].sequences.equal(outs[2].sequences)
    assert outs[1].sequences.equal(outs[2].sequences)
    assert {token.layers for row in outs[0].trace for token in row} == {4}
    assert {token.layers for row in outs[2].trace for token in row} == {None}


@pytest.mark.parametrize("engine", ["static", "static+int8"])
@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("rule", RULES[:3], ids=str)
def test_a_row_does_not_depend_on_its_neighbours(rule, do_sample, engine):
    lengths = [4, 9, 1, 6, 6, 2]
    ids, mask = sources(3, lengths)
    inputs = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    keywords = {"policy": rule, "max_new_tokens": NEW, "engine": engine, "do_sample": do_sample}
    seeds = torch.Generator().manual_seed(4)
    batch = bild.generate(MODELS["t5"], None, ids, attention_mask=mask, generator=seeds, **keywords)
    seeds = torch.Generator().manual_seed(4)
    many = bild.generate_many(MODELS["t5"], None, inputs, batch_size=2, generator=seeds, **keywords)
    for row, (_, out) in zip(range(len(lengths)), many, strict=True):
        assert [(token.token_id, token.layers) for token in out.trace[0]] == [
            (token.token_id, token.layers) for token in batch.trace[row]
        ]


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        (bild.Calm(threshold=0, decay=None), 1),
        (bild.Calm(threshold=0, decay=None, min_layers=3), 3),
        (bild.Calm(threshold=0, decay=None, confidence="cosine"), 2),
        (bild.Calm(threshold=0, decay=None, confidence="saturation"), 2),
    ],
    ids=str,
)
def test_the_first_exit(rule, layers):
    assert {token.layers for row in write(MODELS["t5"], rule, 3).trace for token in row} == {layers}


def test_layers_are_told_of_written_tokens_alone():
    prompt = torch.tensor([[START, 5, 7]] * len(LENGTHS))
    out = write(MODELS["t5"], RULES[0], 3, decoder_input_ids=prompt)
    assert all(token.layers in (1, 2, 3, 4) for row in out.trace for token in row)
    assert [len(row) for row in out.trace] == [row.tokens for row in out.stats]


def test_a_layer_that_is_left_out_is_not_computed(monkeypatch):
    passed = []
    pass_through = T5State.pass_through

    def counted(state, hidden, query, step, layer):
        passed.append(len(hidden))
        return pass_through(state, hidden, query, step, layer)

    monkeypatch.setattr(T5State, "pass_through", counted)
    out = write(MODELS["t5"], RULES[0], 3)
    took = [token.layers for row in out.trace for token in row]
    assert sum(passed) == sum(took) < 4 * len(took)


def test_the_trace_file_tells_the_layers(tmp_path):
    out = write(MODELS["t5"], RULES[0], 3)
    bild.write_json_lines(out, tmp_path / "trace.jsonl")
    first = json.loads((tmp_path / "trace.jsonl").read_text().splitlines()[0])["trace"]
    assert [token["layers"] for token in first] == [token.layers for token in out.trace[0]]


def test_transformers_forward_does_not_leave_early():
    with pytest.raises(ValueError, match=r"engine='hf' runs this model .* use engine='static' and a T5 or mT5"):
        write(MODELS["t5"], RULES[0], 3, engine="hf")
    with pytest.raises(ValueError, match=r"engine='auto' runs this model"):
        bild.generate(family_pair("bart")[0], None, **inputs_of("bart", 0), policy=RULES[0], max_new_tokens=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confidence": "sure"}, "confidence='sure' must be one of 'softmax', 'cosine', 'saturation'"),
        ({"threshold": -0.1}, r"threshold=-0.1 must be a number >= 0"),
        ({"threshold": math.nan}, "threshold=nan must be"),
        ({"decay": -1.0}, "decay=-1.0 must be a number >= 0, or None"),
        ({"min_layers": 0}, "min_layers=0 must be a whole number >= 1"),
    ],
)
def test_ranges(wrong, message):
    with pytest.raises(ValueError, match=message):
        bild.Calm(**wrong)
