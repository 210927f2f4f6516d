"""The static engine as a whole: transformers' numbers and texts, and never a stale weight."""

import copy
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.utils.prune
from transformers import MT5Config, MT5ForConditionalGeneration

import bild
from bild.engine import make_runner, prepared
from bild.engine.hf import EncoderDecoderRunner
from bild.engine.prepared import t5_halves, why_not_t5
from bild.engine.t5.runner import T5Runner
from tests.bild.models import VOCAB, pair, read_by_transformers, sources, tiny_t5

LENGTHS = [6, 1, 4]
POLICIES = [
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4),
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4, verify_eos=True),
    bild.LargeOnly(),
    bild.SmallOnly(),
]


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_every_policy_writes_the_same_on_both_engines(policy, do_sample):
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    outs = [
        bild.generate(
            large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=12, do_sample=do_sample,
            generator=torch.Generator().manual_seed(5), engine=engine,
        )
        for engine in ("static", "hf")
    ]  # fmt: skip
    assert outs[0].sequences.equal(outs[1].sequences)
    assert outs[0].stats == outs[1].stats


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        tiny_t5(1, width=64, vocab=500, tied=True, dtype=torch.float32),
        tiny_t5(2, width=64, vocab=500, gated=True, layers=3, decoder_layers=1, dtype=torch.float32),
    ],
    ids=["tied relu", "gated, shallow decoder"],
)
@pytest.mark.parametrize("width", [1, 5, 30])
def test_float32_logits_are_those_of_transformers(model, width):
    ids, mask = sources(4, [40, 17], vocab=500)
    tokens = torch.randint(2, 500, (2, width), generator=torch.Generator().manual_seed(0))
    expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=tokens).logits
    runner = make_runner(model, "static", width)
    runner.prefill(input_ids=ids, attention_mask=mask)
    logits = runner.extend(tokens, [width, width])
    assert float((logits - expected).norm() / expected.norm()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_transformers(dtype):
    model, inputs, tokens, expected = read_by_transformers(dtype)
    runner = make_runner(model, "static", 6)
    runner.prefill(**inputs)
    logits = runner.extend(tokens, [6, 6]).float()
    assert float((logits - expected).norm() / expected.norm()) < (0.02 if dtype == torch.bfloat16 else 0.002)


@torch.no_grad()
def test_float16_saturates():
    model = tiny_t5(2, width=64, dtype=torch.float32)
    model.decoder.block[0].layer[2].DenseReluDense.wo.weight.mul_(2e4)
    assert logits_now(model.half()).isfinite().all()


def test_mt5_is_served():
    torch.manual_seed(0)
    config = MT5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = MT5ForConditionalGeneration(config).double().eval()
    ids, mask = sources(3, LENGTHS, vocab=50)
    outs = [
        bild.generate(model, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=9, engine=engine)
        for engine in ("static", "hf")
    ]
    assert outs[0].sequences.equal(outs[1].sequences)
    assert isinstance(make_runner(model, "auto", 9), T5Runner)


def logits_now(model, engine="static"):
    runner = make_runner(model, engine, 4)
    runner.prefill(input_ids=torch.tensor([[5, 6, 1]]))
    return runner.extend(torch.tensor([[0, 3]]), [2])


def in_place(model):
    model.decoder.block[0].layer[2].DenseReluDense.wi.weight.mul_(2)


def in_the_encoder(model):
    model.encoder.block[0].layer[0].SelfAttention.v.weight.mul_(2)


def through_data(model):
    model.decoder.block[1].layer[0].SelfAttention.q.weight.data.mul_(3)


def one_row_through_data(model):
    model.lm_head.weight.data[3].mul_(-5)


def one_head_through_data(model):
    own = model.decoder.block[1].layer[0].SelfAttention
    own.k.weight.data[own.key_value_proj_dim : 2 * own.key_value_proj_dim].mul_(-5)


def one_column_through_data(model):
    model.decoder.block[0].layer[2].DenseReluDense.wi.weight.data[:, 5].mul_(-5)


def the_norms_epsilon(model):
    model.decoder.final_layer_norm.variance_epsilon = 10.0


def scaled_outputs(model):
    model.config.scale_decoder_outputs = True


def replaced(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))


def cast(model):
    model.to(torch.bfloat16).to(torch.float32)


def loaded(model):
    model.load_state_dict(tiny_t5(99, dtype=torch.float32).state_dict())


@torch.no_grad()
@pytest.mark.parametrize("engine", ["static", "static+int8"])
@pytest.mark.parametrize(
    "change",
    [
        in_place,
        in_the_encoder,
        through_data,
        one_row_through_data,
        one_head_through_data,
        one_column_through_data,
        the_norms_epsilon,
        scaled_outputs,
        replaced,
        cast,
        loaded,
    ],
)
def test_changed_weights_are_never_stale(change, engine):
    model = tiny_t5(7, dtype=torch.float32)
    before = logits_now(model, engine)
    assert torch.equal(before, logits_now(model, engine))
    change(model)
    after = logits_now(model, engine)
    assert not torch.equal(before, after)
    assert torch.equal(after, logits_now(copy.deepcopy(model), engine))


def watched(model):
    assert why_not_t5(model) is None
    return prepared._watches[model]


def seen_by(watch, values, change):
    """Whether a change of these values is noticed, which is undone."""
    before = values.clone()
    change(values)
    noticed = not watch.is_current()
    values.copy_(before)
    assert watch.is_current()
    return noticed


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_no_column_no_token_and_no_head_is_changed_through_data_unnoticed(tied):
    model = tiny_t5(7, tied=tied, dtype=torch.float32)
    watch = watched(model)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            continue
        parts = list(weight.data.unbind(1))
        if weight is model.lm_head.weight:
            parts += weight.data.unbind(0)
        if name.endswith((".q.weight", ".k.weight", ".v.weight")):
            parts += weight.data.split(model.config.d_kv)
        assert all(seen_by(watch, part, lambda values: values.mul_(-5).add_(1)) for part in parts), name


@torch.no_grad()
def test_no_module_gets_a_hook_or_another_forward_or_class_unnoticed():
    model = tiny_t5(7)
    watch = watched(model)
    for name, module in model.named_modules():
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            handle = register(lambda *_: None)
            assert not watch.is_current(), name
            handle.remove()
        module.forward = None
        assert not watch.is_current(), name
        del module.forward
        if module is not model:
            kind = type(module)
            module.__class__ = type("Adapted", (kind,), {})
            assert not watch.is_current(), name
            module.__class__ = kind
        assert watch.is_current(), name


@torch.no_grad()
def test_no_module_and_no_weight_is_replaced_or_moved_unnoticed():
    model = tiny_t5(7)
    watch = watched(model)
    for name, module in model.named_modules():
        for key, child in module.named_children():
            setattr(module, key, copy.deepcopy(child))
            assert not watch.is_current(), (name, key)
            setattr(module, key, child)
        for key, weight in list(module.named_parameters(recurse=False)):
            setattr(module, key, torch.nn.Parameter(weight.detach()))
            assert not watch.is_current(), (name, key)
            setattr(module, key, weight)
            assert watch.is_current(), (name, key)
            values = weight.data
            weight.data = values.clone()
            assert not watch.is_current(), (name, key)
            weight.data = values
        assert watch.is_current(), name


def test_weights_are_prepared_once():
    model = tiny_t5(7, dtype=torch.float32)
    made = []
    for _ in range(2):
        assert why_not_t5(model) is None
        made.append([t5_halves(model, int8=int8) for int8 in (False, True)])
    assert made[0][0] is made[1][0]
    assert made[0][1] is made[1][1]
    assert made[0][0] is not made[0][1]


@torch.no_grad()
def test_what_the_step_would_not_see_goes_through_the_models_own_forward():
    hooked = tiny_t5(7)
    assert isinstance(make_runner(hooked, "auto", 9), T5Runner)
    hooked.decoder.block[0].register_forward_hook(lambda *_: None)
    assert isinstance(make_runner(hooked, "auto", 9), EncoderDecoderRunner)
    with pytest.raises(ValueError, match=r"decoder.block.0 has hooks"):
        make_runner(hooked, "static", 9)

    class Adapted(torch.nn.Linear):
        pass

    heard = []
    overheard = tiny_t5(7)
    overheard.encoder.register_forward_hook(lambda *_: heard.append(True))
    logits_now(overheard)
    assert heard == [True]

    adapted = tiny_t5(7)
    assert isinstance(make_runner(adapted, "auto", 9), T5Runner)
    adapted.decoder.block[1].layer[0].SelfAttention.q = Adapted(16, 16, bias=False).double()
    with pytest.raises(ValueError, match=r"decoder.block.1.layer.0.SelfAttention.q is a Adapted"):
        make_runner(adapted, "static", 9)


def hooked(model):
    model.register_forward_hook(lambda *_: None)


def biased(model):
    model.lm_head = torch.nn.Linear(16, VOCAB).double()


def own_embeddings(model):
    model.decoder.embed_tokens = torch.nn.Embedding(VOCAB, 16).double()


def pruned(model):
    torch.nn.utils.prune.l1_unstructured(model.decoder.block[0].layer[0].SelfAttention.q, "weight", 0.5)


def eight_bits(model):
    weight = model.decoder.block[0].layer[0].SelfAttention.q.weight
    weight.data = weight.data.to(torch.float8_e4m3fn)


def of_another_class(model):
    model.encoder.__class__ = type("Adapted", (type(model.encoder),), {})
    model.decoder.block[0].layer[0].SelfAttention.q.__class__ = type("Adapted", (torch.nn.Linear,), {})


@torch.no_grad()
@pytest.mark.parametrize("change", [hooked, biased, own_embeddings, pruned, eight_bits, of_another_class])
def test_a_model_that_is_no_longer_plain_goes_through_its_own_forward(change):
    model = tiny_t5(7)
    assert isinstance(make_runner(model, "auto", 9), T5Runner)
    change(model)
    assert isinstance(make_runner(model, "auto", 9), EncoderDecoderRunner)
    with pytest.raises(ValueError, match="engine='static' cannot run this model"):
        make_runner(model, "static", 9)


def test_a_model_made_in_inference_mode_goes_through_its_own_forward():
    with torch.inference_mode():
        model = tiny_t5(7)
    assert isinstance(make_runner(model, "auto", 9), EncoderDecoderRunner)


@torch.no_grad()
def test_what_was_prepared_goes_with_the_model_or_when_it_is_forgotten():
    model = tiny_t5(7, dtype=torch.float32)
    logits_now(model)
    watch = weakref.ref(prepared._watches[model])
    bild.forget(model)
    assert watch() is None
    logits_now(model)
    watch = weakref.ref(prepared._watches[model])
    del model
    gc.collect()
    assert watch() is None


@torch.no_grad()
def test_a_full_cache_refuses_before_it_overflows():
    runner = make_runner(tiny_t5(7), "static", 3)
    runner.prefill(input_ids=torch.tensor([[5, 6, 1]]))
    runner.extend(torch.tensor([[0, 3]]), [2])
    with pytest.raises(ValueError, match="the cache holds 3 tokens a row, 4 are needed"):
        runner.extend(torch.tensor([[4, 5]]), [2])


def test_threads_that_come_first_prepare_once_and_share_it(monkeypatch):
    model = tiny_t5(3)
    real, made = prepared.T5Decoder, []

    def slow(*arguments, **keywords):
        made.append(threading.get_ident())
        time.sleep(0.2)
        return real(*arguments, **keywords)

    monkeypatch.setattr(prepared, "T5Decoder", slow)
    ids, mask = sources(3, [6, 2])
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(bild.generate, model, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=9)
            for _ in range(4)
        ]
        outs = [call.result().sequences for call in calls]
    assert len(made) == 1
    assert all(out.equal(outs[0]) for out in outs)
    gone = weakref.ref(watched(model).halves[False][1])
    bild.forget(model)
    gc.collect()
    assert gone() is None


def test_what_attention_adds_lies_as_its_fused_kernel_asks_for():
    model = tiny_t5(3)
    make_runner(model, "static", 9)
    encoder, decoder = t5_halves(model, int8=False)
    assert encoder.bias(7).is_contiguous()
    assert decoder.bias_of_distance(5).stride(-1) == 1
