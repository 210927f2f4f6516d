"""Bad input: a precise ValueError before any work, that says what, where, and what to do."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BatchEncoding,
    FSMTConfig,
    FSMTForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    MambaConfig,
    MambaForCausalLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

import bild
from bild.sampling import Sampler
from tests.bild.models import PAD, pair, sources, tiny_t5

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])
MASK = torch.ones_like(IDS)
TINY_GPT = GPT2Config(vocab_size=24, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1)
UNFIT = [
    MambaForCausalLM(MambaConfig(vocab_size=24, hidden_size=8, num_hidden_layers=1)),
    XLNetLMHeadModel(XLNetConfig(vocab_size=24, d_model=8, n_layer=1, n_head=1, d_inner=8)),
    FSMTForConditionalGeneration(
        FSMTConfig(
            langs=["en", "de"], src_vocab_size=24, tgt_vocab_size=24, d_model=8, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        )
    ),
]  # fmt: skip


def go(large=None, small=None, ids=IDS, **arguments):
    """A sound call; each test spoils one thing."""
    own_large, own_small = pair(0)
    settings = {"attention_mask": MASK, "policy": bild.BigLittle(), "max_new_tokens": 3, **arguments}
    return bild.generate(own_large if large is None else large, own_small if small is None else small, ids, **settings)


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be computed before the error."""
    for model in pair(0):
        monkeypatch.setattr(model.encoder, "forward", lambda *args, **kwargs: pytest.fail("work began"))


# Ranges


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fallback": -0.1}, r"fallback=-0.1 must be a probability >= 0"),
        ({"fallback": math.nan}, r"fallback=nan must be a probability"),
        ({"rollback": -1.0}, r"rollback=-1.0 must be a number of nats >= 0 \(inf = never roll back\)"),
        ({"rollback": math.nan}, r"rollback=nan must be"),
        ({"draft_length": 0}, r"draft_length=0 must be a whole number >= 1"),
        ({"draft_length": -3}, r"draft_length=-3 must be"),
        ({"draft_length": 2.5}, r"draft_length=2.5 must be a whole number"),
        ({"draft_length": math.nan}, r"draft_length=nan must be a whole number"),
        ({"draft_length": math.inf}, r"draft_length=inf must be a whole number"),
        ({"draft_length": True}, r"draft_length=True must be a whole number"),
        ({"rule": "authors'"}, r"rule=\"authors'\" must be 'paper' or 'authors'"),
        ({"rule": "authors", "verify_eos": True}, r"never verifies a drafted EOS; use rule='paper'"),
    ],
)
def test_ranges_of_big_little(arguments, message):
    with pytest.raises(ValueError, match=message):
        bild.BigLittle(**arguments)


@pytest.mark.parametrize("engine", ["static", "graphs"])
def test_what_is_wrong_with_a_call_is_told_before_models_are_prepared(engine, monkeypatch):
    monkeypatch.setattr("bild.engine.t5_halves", None)
    large, small = pair(0)
    for keywords, message in (
        ({"max_new_tokens": "5"}, "max_new_tokens='5' must be a whole number >= 1"),
        ({"do_sample": True, "generator": [torch.Generator()]}, "holds 1 generators for a batch of 2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            bild.generate(large, small, IDS, policy=bild.BigLittle(), engine=engine, **keywords)
    if engine == "graphs":
        with pytest.raises(ValueError, match="captured graphs, which take every token through every layer"):
            bild.generate(large, None, IDS, policy=bild.Calm(), engine=engine)


def test_a_policy_that_never_drafts_needs_no_small_model():
    large, _ = pair(0)
    expected = bild.generate(large, None, IDS, policy=bild.LargeOnly(), max_new_tokens=9).sequences
    for policy in (bild.BigLittle(fallback=1.5), bild.TokenCascade(alpha=-0.1)):
        assert bild.generate(large, None, IDS, policy=policy, max_new_tokens=9).sequences.equal(expected)


def test_the_ends_of_the_ranges_are_fine():
    for arguments in (
        {"fallback": 0}, {"fallback": 1}, {"fallback": math.inf}, {"rollback": 0}, {"rollback": math.inf},
        {"draft_length": 1},
    ):  # fmt: skip
        (name,) = arguments
        assert getattr(bild.BigLittle(**arguments), name) == arguments[name]
    Sampler(do_sample=True, temperature=0, top_k=1, top_p=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.5}, r"temperature=-0.5 must be a finite number >= 0 \(0 = greedy\)"),
        ({"temperature": math.nan}, "temperature=nan must be"),
        ({"temperature": math.inf}, "temperature=inf must be"),
        ({"top_k": 0}, "top_k=0 must be a whole number >= 1, or None"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number"),
        ({"top_p": 0.0}, r"top_p=0.0 must be in \(0, 1\], or None"),
        ({"top_p": 1.1}, "top_p=1.1 must be in"),
        ({"top_p": math.nan}, "top_p=nan must be in"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be a whole number >= 1"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1 must be"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5 must be"),
        ({"max_new_tokens": math.nan}, "max_new_tokens=nan must be"),
        ({"engine": "fast"}, r"engine='fast' does not exist; use 'auto', 'hf', .* or 'graphs'"),
        ({"policy": bild.BigLittle(rule="authors"), "do_sample": True}, "greedy only; use rule='paper'"),
        ({"streamer": object()}, "a streamer shows one row, the batch holds 2"),
        ({"generator": [torch.Generator()], "do_sample": True}, "1 generators for a batch of 2 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
@pytest.mark.usefixtures("no_work")
def test_arguments_of_a_call(arguments, message):
    with pytest.raises(ValueError, match=message):
        go(**arguments)


# Inputs


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (None, None, r"no input: pass input_ids \(B, S\)"),
        (torch.zeros(2, 0, dtype=torch.long), None, r"input_ids is empty \(shape \(2, 0\)\); pass at least one row"),
        (torch.zeros(0, 3, dtype=torch.long), None, r"input_ids is empty \(shape \(0, 3\)\)"),
        (torch.tensor([5, 6, 7]), None, r"input_ids must be \(batch, length\) token ids"),
        (torch.ones(2, 3), None, "got torch.float32"),
        (torch.ones(2, 3, dtype=torch.bool), None, "got torch.bool"),
        (torch.tensor([[5, 24, 7]]), None, "id 24, but the large model embeds ids 0 to 23; use the tokenizer"),
        (torch.tensor([[5, -1, 7]]), None, "id -1, but the large model embeds ids 0 to 23"),
        (torch.tensor([[5, 6], [5, PAD]]), None, "input_ids row 1 holds the pad id 0 but there is no attention_mask"),
        (IDS, torch.ones(2, 2), r"attention_mask is \(2, 2\), input_ids are \(2, 3\); they must agree"),
        (IDS, torch.ones(3, 3), "different numbers of rows: {'attention_mask': 3, 'input_ids': 2}"),
        (IDS, torch.tensor([[1, 1, 1], [0, 0, 0]]), "attention_mask row 1 is all zeros: the source is empty"),
        (IDS, torch.ones(2, 3, device="meta"), "attention_mask is on meta, the models are on cpu; move it"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_inputs(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        go(ids=ids, attention_mask=mask)


def test_a_source_that_every_model_embeds_may_hold_pads_under_a_mask():
    ids, mask = sources(0, [3, 1])
    assert bool((ids == PAD).any())
    assert len(go(ids=ids, attention_mask=mask).stats) == 2


# Models


@pytest.mark.usefixtures("no_work")
def test_missing_models():
    large, small = pair(0)
    with pytest.raises(ValueError, match=r"BigLittle\(.*needs a small model; pass small=\.\.\."):
        bild.generate(large, None, IDS, policy=bild.BigLittle())
    with pytest.raises(ValueError, match=r"BigLittle\(.*needs a large model; pass large=\.\.\."):
        bild.generate(None, small, IDS, policy=bild.BigLittle())
    with pytest.raises(ValueError, match=r"LargeOnly\(\) needs a large model"):
        bild.generate(None, small, IDS, policy=bild.LargeOnly())
    with pytest.raises(ValueError, match=r"SmallOnly\(\) needs a small model"):
        bild.generate(large, None, IDS, policy=bild.SmallOnly())


@pytest.mark.usefixtures("no_work")
def test_a_pair_of_two_kinds():
    gpt = GPT2LMHeadModel(TINY_GPT).eval()
    with pytest.raises(ValueError, match=r"a GPT2LMHeadModel \(decoder-only\), the small one a T5.*one kind"):
        go(large=gpt)
    with pytest.raises(ValueError, match=r"large model is a T5.* \(encoder-decoder\), the small one a GPT2LMHeadModel"):
        go(small=gpt)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            GPT2Model(TINY_GPT),
            "the large model is a GPT2Model, which writes no text; load it with Auto",
        ),
        (tiny_t5(50).encoder, "the large model is a T5Stack, which writes no text"),
        (UNFIT[0], "the large model is a MambaForCausalLM, which keeps a state that cannot take back a token"),
        (UNFIT[1], "the large model is a XLNetLMHeadModel, which keeps no cache of keys and values"),
        (UNFIT[2], "the large model is a FSMTForConditionalGeneration, which reads drafts without a causal mask"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
@pytest.mark.usefixtures("no_work")
def test_models_that_cannot_verify_a_draft(model, message):
    with pytest.raises(ValueError, match=message):
        go(large=model.eval())


@pytest.mark.parametrize("name", ["large", "small"])
@pytest.mark.usefixtures("no_work")
def test_training_mode(name):
    model = tiny_t5(50).train()
    with pytest.raises(ValueError, match=rf"the {name} model is in training mode.*call eval\(\)"):
        go(**{name: model})


@pytest.mark.usefixtures("no_work")
def test_mixed_devices():
    elsewhere = tiny_t5(50).to("meta")
    with pytest.raises(ValueError, match="the large model is on cpu, the small one on meta; move one of them"):
        go(small=elsewhere)
    with pytest.raises(ValueError, match="attention_mask is on cpu, the models are on meta"):
        bild.generate(elsewhere, None, IDS, attention_mask=MASK, policy=bild.LargeOnly())


@pytest.mark.parametrize("field", ["eos_token_id", "pad_token_id", "decoder_start_token_id"])
@pytest.mark.usefixtures("no_work")
def test_special_ids_that_differ(field):
    small = tiny_t5(50)
    setattr(small.generation_config, field, 7)
    with pytest.raises(ValueError, match=rf"{field} is \d in the large model and 7 in the small one.*one tokenizer"):
        go(small=small)


def test_the_order_of_eos_ids_does_not_matter():
    large, small = tiny_t5(50, eos=[1, 5]), tiny_t5(51, eos=[5, 1])
    assert go(large=large, small=small).sequences.shape[0] == 2


def test_a_model_that_takes_no_part_may_be_unsound():
    large, small = pair(0)
    broken = tiny_t5(50, vocab=30).train().to("meta")
    assert go(large=large, small=broken, policy=bild.LargeOnly()).stats[0].large_steps > 0
    assert go(large=broken, small=small, policy=bild.SmallOnly()).stats[0].small_steps > 0


def test_no_start_token():
    large = tiny_t5(50)
    large.generation_config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="neither decoder_start_token_id nor bos_token_id; set the first"):
        bild.generate(large, None, IDS, attention_mask=MASK, policy=bild.LargeOnly())


def test_learned_positions_end():
    config = BartConfig(
        vocab_size=24, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=6,
    )  # fmt: skip
    bart = BartForConditionalGeneration(config).eval()
    arguments = {"attention_mask": MASK, "policy": bild.LargeOnly()}
    with pytest.raises(ValueError, match=r"max_new_tokens=6 after 1 decoder tokens.*6 positions.*use at most 5"):
        bild.generate(bart, None, IDS, max_new_tokens=6, **arguments)
    assert bild.generate(bart, None, IDS, max_new_tokens=5, **arguments).sequences.shape[1] <= 6


# Vocabularies


def test_a_narrower_head_passes_until_a_token_is_beyond_it():
    large, _ = pair(0)
    small = tiny_t5(52, layers=1, vocab=20)
    ids, mask = sources(0, [6], vocab=20)
    exact = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.2)
    kept = GenerationConfig(suppress_tokens=list(range(20, 24)))
    solo = bild.generate(
        large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=8, generation_config=kept
    )
    out = bild.generate(large, small, ids, attention_mask=mask, policy=exact, max_new_tokens=8, generation_config=kept)
    assert out.sequences.tolist() == solo.sequences.tolist()
    assert out.stats[0].drafted > 0
    beyond = GenerationConfig(forced_bos_token_id=21)
    with pytest.raises(ValueError, match=r"token id 21.*model of 24 tokens, but the small model embeds only 20"):
        bild.generate(
            large, small, ids, attention_mask=mask, policy=bild.BigLittle(rule="authors"), max_new_tokens=8,
            generation_config=beyond,
        )  # fmt: skip


@pytest.mark.usefixtures("no_work")
def test_a_source_that_the_small_model_cannot_embed():
    with pytest.raises(ValueError, match="id 10, but the small model embeds ids 0 to 9"):
        go(small=tiny_t5(52, layers=1, vocab=10))


# Logits


@pytest.mark.parametrize("name", ["large", "small"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers(name, value):
    model = tiny_t5(53, layers=1)
    with torch.no_grad():
        model.lm_head.weight[3] = value
    with pytest.raises(ValueError, match=f"the {name} model's logits are NaN or infinite in row 0 after"):
        go(**{name: model}, policy=bild.BigLittle(fallback=0.0))


# Generation configs


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("num_beams", 4, "writes one sequence; leave it at 1"),
        ("num_return_sequences", 2, "writes one sequence; leave it at 1"),
        ("guidance_scale", 1.5, "leave it at 1"),
        ("stop_strings", ["x"], "StopStringCriteria as stopping_criteria"),
        ("max_time", 1, "MaxTimeCriteria as stopping_criteria"),
        ("remove_invalid_values", True, "load the model in bfloat16 or float32"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_what_is_not_supported_is_an_error_from_the_user(field, value, remedy):
    config = GenerationConfig()
    setattr(config, field, value)
    with pytest.raises(ValueError, match=f"{field}=.* in generation_config is not supported: .*{remedy}"):
        go(generation_config=config)


def test_beams_in_a_models_own_file_are_ignored_with_one_warning():
    large = tiny_t5(50)
    plain = bild.generate(large, None, IDS, attention_mask=MASK, policy=bild.LargeOnly(), max_new_tokens=4)
    large.generation_config.num_beams = 4
    for given in (None, GenerationConfig(no_repeat_ngram_size=9)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            beams = bild.generate(
                large, None, IDS, attention_mask=MASK, policy=bild.LargeOnly(), max_new_tokens=4,
                generation_config=given,
            )  # fmt: skip
        assert [str(warning.message) for warning in caught] == [
            "num_beams=4 in generation_config of the model is ignored: two-model decoding writes one sequence; "
            "leave it at 1"
        ]
        assert caught[0].filename == __file__
        assert beams.sequences.tolist() == plain.sequences.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bild.generate(
            large, None, IDS, attention_mask=MASK, policy=bild.LargeOnly(), max_new_tokens=4,
            generation_config=GenerationConfig(num_beams=1, guidance_scale=1.0, remove_invalid_values=False),
        )  # fmt: skip


# What is no tensor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Ein Hund.", r"input_ids is text, and models read token ids: tokenize it first, tokenizer\(texts\)"),
        (["Ein Hund.", "Zwei"], "input_ids is text, .*: tokenize it first"),
        ([[5, 6], [7, 8]], r'input_ids is a list; pass a tensor: tokenizer\(texts, return_tensors="pt"\)'),
        (
            BatchEncoding({"input_ids": IDS, "attention_mask": MASK}),
            r"input_ids is a BatchEncoding, all that a tokenizer makes; unpack it: generate\(\.\.\., \*\*inputs\)",
        ),
    ],
)
def test_what_comes_before_a_tensor_is_named(given, message, no_work):
    with pytest.raises(ValueError, match=message):
        go(ids=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Ein Hund.", r'inputs is a str; pass one source after the other: tokenizer\(texts\)\["input_ids"\]'),
        (BatchEncoding({"input_ids": IDS}), "inputs is a BatchEncoding; pass one source after the other"),
        (["Ein Hund.", "Zwei"], "input 0 is text, .*: tokenize it first"),
        ([["Ein", "Hund"]], "input 0 is text"),
    ],
)
def test_of_many_sources_each_is_token_ids(given, message, no_work):
    with pytest.raises(ValueError, match=message):
        list(bild.generate_many(*pair(0), given, policy=bild.BigLittle()))
