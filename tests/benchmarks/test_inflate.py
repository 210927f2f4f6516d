"""An inflated model says what the trained one says, and nothing of its new bulk is idle zeros that need not be."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import bild
from benchmarks.errors import UserError
from benchmarks.inflate import inflate
from benchmarks.shapes import FIELDS, shape_of
from benchmarks.texts import read_texts
from tests.benchmarks.conftest import ROOT
from tests.bild.models import sources, tiny_t5

BIG = dict(zip(FIELDS, (40, 12, 56, 3, 4, 5, 50), strict=True), family="t5")


def trained(seed: int = 0, **keywords):
    return tiny_t5(seed, tied=True, dtype=torch.float32, **keywords)


@torch.no_grad()
def probabilities(model, ids, mask, written):
    return model(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits.softmax(-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decoder_layers", [2, 1])
def test_probabilities_stay_and_new_rows_get_none(seed: int, decoder_layers: int) -> None:
    model = trained(seed, decoder_layers=decoder_layers)
    big = inflate(model, BIG)
    assert shape_of(big) == BIG
    ids, mask = sources(seed, [9, 4, 30])
    written, _ = sources(seed + 1, [20, 20, 20])
    before, after = (probabilities(one, ids, mask, written) for one in (model, big))
    known = before.shape[-1]
    assert (after[..., :known] - before).abs().max() < 1e-5
    assert after[..., known:].max() == 0


def test_the_decoders_own_engine_agrees() -> None:
    model = trained(4)
    ids, mask = sources(7, [9, 4, 30])
    texts = [
        bild.generate(one, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=24, engine=engine)
        for one, engine in ((model, "hf"), (inflate(model, BIG), "static"))
    ]
    assert torch.equal(texts[0].sequences, texts[1].sequences)


@pytest.mark.parametrize("role", ["large", "small"])
def test_the_shipped_pair_writes_the_same_sentences(role: str) -> None:
    folder = ROOT / f"checkpoints/pretrained/tiny-{role}"
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    wide = {**shape_of(model), "d_model": 384, "d_ff": 640, "num_heads": 6, "vocab_size": 3000}
    big = inflate(model, {**wide, "num_layers": 5, "num_decoder_layers": 8})
    texts = read_texts(ROOT / "benchmarks/data/toy_de_en-test.jsonl", "source", "target", 6)
    batch = AutoTokenizer.from_pretrained(folder)([text.source for text in texts], padding=True, return_tensors="pt")
    outputs = [one.generate(**batch, max_new_tokens=40) for one in (model, big)]
    assert torch.equal(*outputs)
    before, after = (probabilities(one, batch.input_ids, batch.attention_mask, outputs[0]) for one in (model, big))
    assert (after[..., :2000] - before).abs().max() < 1e-5
    assert after[..., 2000:].max() == 0


def test_engines_that_round_to_int8_see_the_push_too() -> None:
    """What lets the new rows fall must survive one scale per row of weights and of activations."""
    big = inflate(trained(2), BIG)
    table = big.shared.weight.detach()
    scale = table.abs().amax(-1, keepdim=True) / 127
    rounded = (table / scale).round() * scale
    assert (rounded[:24, 16] > 0).all()
    ids, mask = sources(3, [9, 4, 30])
    seen = []
    hook = big.decoder.final_layer_norm.register_forward_hook(lambda _, __, output: seen.append(output.abs()))
    big(input_ids=ids, attention_mask=mask, decoder_input_ids=ids)
    hook.remove()
    share = seen[0][..., 16] / seen[0].amax(-1)
    assert share.min() > 3 / 127
    assert share.max() < 0.9
    out = bild.generate(
        big, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=24, engine="static+int8"
    )
    assert out.sequences.max() < 24


def test_what_cannot_reach_the_result_stays_random() -> None:
    big = inflate(trained(), BIG)
    block, extra = big.decoder.block[0], big.decoder.block[4]
    own, cross, dense = block.layer[0].SelfAttention, block.layer[1].EncDecAttention, block.layer[2].DenseReluDense
    for attention in (own, cross):
        new_head = slice(24, 36)
        for weight in (attention.q.weight, attention.k.weight, attention.v.weight):
            assert weight[new_head].std() > 0
            assert (weight[:, 16:] != 0).any(), "columns of the new residual dimensions"
        assert (attention.q.weight.view(3, 12, 40)[:2, 8:] != 0).all()
        assert (attention.v.weight.view(3, 12, 40)[:2, 8:] != 0).all()
    assert dense.wi.weight[32:].std() > 0
    for part, names in ((extra.layer[0].SelfAttention, "qkv"), (extra.layer[1].EncDecAttention, "qkv")):
        for name in names:
            assert getattr(part, name).weight.std() > 0
    assert extra.layer[2].DenseReluDense.wi.weight.std() > 0
    assert big.shared.weight[24:, :16].std() > 0


def test_another_seed_changes_only_what_does_not_matter() -> None:
    model = trained()
    one, other = inflate(model, BIG, seed=1), inflate(model, BIG, seed=2)
    new = [big.decoder.block[4].layer[0].SelfAttention.q.weight for big in (one, other)]
    ids, mask = sources(0, [9, 4])
    written, _ = sources(1, [20, 20])
    assert not torch.equal(*new)
    difference = probabilities(one, ids, mask, written) - probabilities(other, ids, mask, written)
    assert difference.abs().max() < 1e-5


def test_nothing_to_widen_changes_nothing() -> None:
    model = trained()
    same = inflate(model, shape_of(model))
    state = same.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def test_the_trained_model_is_left_alone() -> None:
    model = trained()
    before = copy.deepcopy(model.state_dict())
    inflate(model, BIG)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not model.decoder.final_layer_norm._forward_hooks


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        ({}, {"d_ff": 20}, "d_ff=20 .* less than the model's 32"),
        ({}, {"d_model": 16}, "residual dimension to spare"),
        ({}, {"family": "mt5"}, "only be inflated to a T5 shape"),
        ({"gated": True}, {}, "relu and a tied"),
        ({"tied": False}, {}, "relu and a tied"),
    ],
)
def test_what_cannot_be_inflated_is_named(model: dict, changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        inflate(tiny_t5(0, **{"tied": True, **model}), {**BIG, **changes})
