"""Every contestant writes the same greedy text in one way of counting, and its encoder's time is told apart."""

import sys
import time

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import bild
from benchmarks import peer_ctranslate2
from benchmarks.errors import UserError
from benchmarks.methods import pad, upto_eos, written
from benchmarks.own import BildMethod
from benchmarks.peer_transformers import TransformersAssisted, TransformersGenerate
from bild.engine import make_runner
from tests.bild.models import PAD, sources, tiny_t5

TOKENS = 20
ONE_BY_ONE = ("assisted", "lookup")  # transformers takes no batches here


def trained(seed: int, **keywords):
    return tiny_t5(seed, tied=True, dtype=torch.float32, **keywords)


@pytest.fixture(scope="module")
def large():
    return trained(3)


@pytest.fixture(scope="module")
def small(large):
    return trained(1003, layers=1, like=large)


@pytest.fixture(scope="module")
def batch():
    return pad([[5, 9, 14, 7, 1]], PAD, torch.device("cpu"))


def exact() -> bild.BigLittle:
    return bild.BigLittle(fallback=0.3, rollback=0.0, verify_eos=True)


def contestants(large, small):
    others, skipped = peer_ctranslate2.contestants(large, ["ctranslate2", "ctranslate2+int8"])
    assert skipped == []
    return [
        TransformersGenerate("alone", large),
        TransformersAssisted("assisted", large, small),
        TransformersGenerate("lookup", large, prompt_lookup_num_tokens=3),
        BildMethod("large alone", bild.LargeOnly(), "hf", large, small),
        BildMethod("exact", exact(), "static", large, small),
        others[0],
    ]


def test_all_lossless_methods_write_the_same(large, small, batch) -> None:
    texts = [method.decode(batch, TOKENS).tokens for method in contestants(large, small)]
    assert len(texts[0][0]) > 3
    assert all(text == texts[0] for text in texts)


def test_int8_of_ctranslate2_is_another_model_of_nearly_the_same_output(large, batch) -> None:
    (method,), _ = peer_ctranslate2.contestants(large, ["ctranslate2+int8"])
    assert method.name == "CTranslate2 int8"
    assert 0 < len(method.decode(batch, TOKENS).tokens[0]) <= TOKENS


def test_batches_are_read_row_by_row(large, small) -> None:
    rows = [[5, 9, 14, 7, 1], [8, 1], [20, 11, 1]]
    together = pad(rows, PAD, torch.device("cpu"))
    assert together[1].sum(-1).tolist() == [5, 2, 3]
    batched = [method for method in contestants(large, small) if method.name not in ONE_BY_ONE]
    expected = [batched[0].decode(pad([row], PAD, torch.device("cpu")), TOKENS).tokens[0] for row in rows]
    assert {len(row) == TOKENS for row in expected} == {True, False}, "one ends in EOS, one does not"
    for method in batched:
        assert method.decode(together, TOKENS).tokens == expected


def test_tokens_are_counted_up_to_eos(large) -> None:
    assert upto_eos([4, 1, 5], {1, 9}) == [4, 1]
    assert upto_eos([4, 9, 1], {1, 9}) == [4, 9]
    assert upto_eos([4, 5], {1}) == [4, 5]
    assert written(torch.tensor([[0, 7, 1, 0, 0], [0, 7, 8, 9, 1]]), large) == [[7, 1], [7, 8, 9, 1]]


def test_the_cap_holds_for_all(large, small, batch) -> None:
    for method in contestants(large, small):
        assert len(method.decode(batch, 2).tokens[0]) <= 2


def test_assisted_generation_forgets_the_last_sentence(large, small, batch, monkeypatch) -> None:
    method = TransformersAssisted("assisted", large, small)
    fresh = small.generation_config.to_dict()
    seen = []

    def learning(*arguments, **keywords):
        seen.append(small.generation_config.to_dict())
        small.generation_config.assistant_confidence_threshold = 0.99
        return type(large).generate(large, *arguments, **keywords)

    monkeypatch.setattr(large, "generate", learning)
    for _ in range(3):
        method.decode(batch, TOKENS)
    assert seen == [fresh] * 3
    small.generation_config = type(small.generation_config).from_dict(fresh)


def test_only_what_promises_the_large_models_text_is_lossless(large, small) -> None:
    def lossless(policy) -> bool:
        return BildMethod("x", policy, "hf", large, small).is_lossless

    assert lossless(bild.LargeOnly())
    assert lossless(exact())
    assert lossless(bild.BigLittle(fallback=1.1, rollback=5.0))
    assert not lossless(bild.SmallOnly())
    assert not lossless(bild.BigLittle(fallback=0.5, rollback=0.0))
    assert not lossless(bild.BigLittle(fallback=0.5, rollback=1.0, verify_eos=True))


class Slow(torch.nn.Module):
    """An encoder's block that first sleeps."""

    def __init__(self, block, seconds: float) -> None:
        super().__init__()
        self.block, self.seconds = block, seconds

    def forward(self, *arguments, **keywords):
        time.sleep(self.seconds)
        return self.block(*arguments, **keywords)


@pytest.mark.parametrize("which", ["transformers", "assisted", "hf", "static"])
def test_encoder_time_is_told_apart(which: str, batch) -> None:
    large, small = trained(3), trained(1003, layers=1)
    for model in (large, small):
        model.encoder.block[0] = Slow(model.encoder.block[0], 0.15)
    method = {
        "transformers": lambda: TransformersGenerate("alone", large),
        "assisted": lambda: TransformersAssisted("assisted", large, small),
        "hf": lambda: BildMethod("exact", exact(), "hf", large, small),
        "static": lambda: BildMethod("exact", exact(), "static", large, small),
    }[which]()
    encoders = 1 if which == "transformers" else 2
    method.decode(batch, 4)
    total, encoder = method.seconds(batch, 4, 4)
    assert encoder == pytest.approx(0.15 * encoders, abs=0.1)
    assert total >= 0.15 * encoders
    assert not large.get_encoder()._forward_hooks


def test_the_encoder_of_ctranslate2_is_what_the_first_token_costs_beyond_a_step(large, batch, monkeypatch) -> None:
    (method,), _ = peer_ctranslate2.contestants(large, ["ctranslate2"])
    monkeypatch.setattr(method, "_translate", lambda _, tokens: {"seconds": 0.1 + 0.08 * tokens})
    assert method.seconds(batch, 5, 5) == pytest.approx((0.5, 0.1))
    assert method.seconds(batch, 5, 1) == pytest.approx((0.5, 0.18))


def test_ctranslate2_tells_the_time_of_its_own_process(large, batch) -> None:
    (method,), _ = peer_ctranslate2.contestants(large, ["ctranslate2"])
    start = time.perf_counter()
    total, encoder = method.seconds(batch, TOKENS, TOKENS)
    assert 0 < total < time.perf_counter() - start
    assert encoder < total


def test_a_child_that_dies_is_told_and_none_is_left_behind(large, batch) -> None:
    (method,), _ = peer_ctranslate2.contestants(large, ["ctranslate2"])
    child = method._child
    child.kill()
    with pytest.raises(UserError, match=r"CTranslate2 float32: its process ended with code -9.*--peers"):
        method.decode(batch, 1)
    (method,), _ = peer_ctranslate2.contestants(large, ["ctranslate2"])
    child = method._child
    assert child.poll() is None
    del method
    assert child.poll() == -9


def test_reading_a_source_that_is_encoded_is_decoding(large, small, batch, monkeypatch) -> None:
    method = BildMethod("exact", exact(), "static", large, small)
    kind = type(make_runner(large, "static", 2))
    real = kind.prefill

    def slow(self, **encoder_inputs):
        time.sleep(0.15)
        return real(self, **encoder_inputs)

    monkeypatch.setattr(kind, "prefill", slow)
    total, encoder = method.seconds(batch, 4, 4)
    assert total > 0.3
    assert encoder < 0.1


def test_time_outside_the_runners(large, small, batch, monkeypatch) -> None:
    method = BildMethod("exact", exact(), "static", large, small)
    real = bild.generate
    quick = method.share_outside_models([batch], TOKENS)

    def lazy(*arguments, **keywords):
        time.sleep(0.3)
        return real(*arguments, **keywords)

    monkeypatch.setattr(bild, "generate", lazy)
    slow = method.share_outside_models([batch], TOKENS)
    assert 0 < quick < slow < 1
    assert slow > 0.6


def test_ctranslate2_may_end_at_once_as_the_model_does() -> None:
    model = tiny_t5(3, tied=True, dtype=torch.float32, eos=5)
    (method,), _ = peer_ctranslate2.contestants(model, ["ctranslate2"])
    batch = sources(2, [5, 2, 6, 1])
    expected = TransformersGenerate("", model).decode(batch, 6).tokens
    assert method.decode(batch, 6).tokens == expected
    assert [5] in expected


def test_ctranslate2_is_left_out_by_name(large, monkeypatch) -> None:
    both = ["ctranslate2", "ctranslate2+int8"]
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=24,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
        )
    )
    assert "for T5 and mT5, not for bart" in peer_ctranslate2.contestants(bart, both)[1][0]["reason"]
    assert peer_ctranslate2.contestants(large, []) == ([], [])
    methods, skipped = peer_ctranslate2.contestants(trained(0).bfloat16(), both)
    assert methods == []
    assert [one["name"] for one in skipped] == ["CTranslate2 float32", "CTranslate2 int8"]
    assert "bfloat16" in skipped[0]["reason"]
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    methods, skipped = peer_ctranslate2.contestants(large, both[:1])
    assert methods == []
    assert skipped == [{"name": "CTranslate2 float32", "reason": "not installed; pip install .[bench]"}]
