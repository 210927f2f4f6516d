"""Where rows begin: prompts of decoder-only models, given decoder prompts, and how much may be written after them."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.stopping_criteria import StoppingCriteria

import bild
from tests.bild.fakes import told
from tests.bild.families import (
    DECODER_ONLY,
    EOS,
    PAD,
    START,
    VOCAB,
    alone,
    family_pair,
    inputs_of,
    one_row,
    prompt_width,
)

EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.0, draft_length=4)
LOSSLESS = [EXACT, bild.Speculative(draft_length=3), bild.SpeculativeCascade(rule="diff", alpha=-2.0, draft_length=3),
            bild.TokenCascade(alpha=-1.0), bild.SequenceCascade(threshold=0.0)]  # fmt: skip
AUTHORS = bild.BigLittle(fallback=0.5, rollback=1.0, rule="authors")
LOSSY = [
    AUTHORS,
    bild.Speculative(draft_length=3, lenience=0.4),
    bild.SpeculativeCascade(rule="opt", alpha=0.1, draft_length=3),
    bild.SpeculativeCascade(rule="token_v3", alpha=0.4, draft_length=3, bonus="large"),
    bild.TokenCascade(alpha=0.5, draft_length=4),
    bild.SequenceCascade(threshold=-0.9),
]


# Prompts of decoder-only models


@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
@pytest.mark.parametrize("name", DECODER_ONLY)
def test_lossless_policies_go_on_from_a_prompt_as_transformers_does(name, policy):
    large, small = family_pair(name)
    inputs = inputs_of(name, 3)
    out = bild.generate(large, small, **inputs, policy=policy, max_new_tokens=9)
    assert out.sequences.tolist() == alone(large, inputs, max_new_tokens=9)


@pytest.mark.parametrize(("name", "do_sample"), [*((name, False) for name in DECODER_ONLY), ("llama", True)], ids=str)
def test_prompts_padded_on_the_left_are_their_rows_for_every_policy(name, do_sample):
    large, small = family_pair(name, 1)
    inputs = inputs_of(name, 1)
    for policy in LOSSY:
        if do_sample and policy == AUTHORS:
            continue
        common = {"policy": policy, "max_new_tokens": 8, "do_sample": do_sample}
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        batch = bild.generate(large, small, **inputs, generator=generators, **common)
        for row in (1, 3):
            prompt = one_row(inputs, row)
            generator = [torch.Generator().manual_seed(row)]
            one = bild.generate(large, small, **prompt, generator=generator, **common)
            written = one.sequences[0, prompt["input_ids"].shape[1] :].tolist()
            start = inputs["input_ids"].shape[1]
            assert batch.sequences[row, start : start + len(written)].tolist() == written
            assert batch.stats[row] == one.stats[0]
            assert told(batch.trace[row]) == told(one.trace[0])


@pytest.mark.parametrize("fields", [
    {"repetition_penalty": 1.8}, {"no_repeat_ngram_size": 2}, {"encoder_repetition_penalty": 2.5},
    {"encoder_no_repeat_ngram_size": 1}, {"min_length": 12}, {"min_new_tokens": 6}, {"bad_words_ids": [[9, 4], [5]]},
    {"forced_eos_token_id": EOS}, {"begin_suppress_tokens": [5, 14, 17]},
    {"exponential_decay_length_penalty": (2, 1.8)},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
def test_processors_see_the_prompt_as_in_transformers(fields):
    large, small = family_pair("llama", 4)
    inputs = inputs_of("llama", 4, [5, 5, 3])
    ends = {"eos_token_id": [EOS, 6]}
    expected = alone(large, inputs, **fields, **ends)
    assert expected != alone(large, inputs, **ends), "this field changes nothing here: choose other values"
    config = GenerationConfig(**fields, **ends)
    for policy in (EXACT, bild.LargeOnly()):
        out = bild.generate(large, small, **inputs, policy=policy, max_new_tokens=12, generation_config=config)
        assert out.sequences.tolist() == expected


class Twice(StoppingCriteria):
    """Ends a row once a token of its prompt, or of what came after, comes again."""

    def __call__(self, input_ids, scores, **kwargs):
        return (input_ids[:, :-1] == input_ids[:, -1:]).any(-1)


class Ban:
    """Bans every token that the row holds already."""

    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids, -torch.inf)


def test_criteria_and_processors_of_the_user_see_prompt_and_text():
    large, small = family_pair("gpt2")
    inputs = inputs_of("gpt2", 4, [4, 4])
    criteria, processors = StoppingCriteriaList([Twice()]), LogitsProcessorList([Ban()])
    for given in ({"stopping_criteria": criteria}, {"logits_processor": processors}):
        config = GenerationConfig(max_new_tokens=12, do_sample=False)
        expected = large.generate(**inputs, generation_config=config, **given).tolist()
        assert expected != alone(large, inputs)
        out = bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=12, **given)
        assert out.sequences.tolist() == expected


def test_a_streamer_gets_the_prompt_first():
    large, small = family_pair("gpt2")
    inputs = inputs_of("gpt2", 4, [4])
    seen = []

    class Collector:
        def put(self, value):
            seen.append(value.tolist())

        def end(self):
            seen.append("end")

    out = bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=8, streamer=Collector())
    assert seen[0] == inputs["input_ids"].tolist()
    assert list(itertools.chain(*seen[1:-1])) == out.sequences[0, 4:].tolist()
    assert seen[-1] == "end"


def test_a_prompt_of_one_token_and_no_mask():
    large, small = family_pair("llama")
    ids = torch.tensor([[5], [9]])
    out = bild.generate(large, small, ids, policy=EXACT, max_new_tokens=8)
    assert out.sequences.tolist() == alone(
        large, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, max_new_tokens=8
    )


def test_a_pad_id_in_a_prompt_is_a_token_where_the_mask_says_so():
    large, small = family_pair("llama")
    ids = torch.tensor([[5, PAD, 9, 7], [PAD, PAD, 6, 7]])
    for mask in (torch.ones_like(ids), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])):
        inputs = {"input_ids": ids, "attention_mask": mask}
        expected = alone(large, inputs)
        assert bild.generate(large, small, **inputs, policy=EXACT, max_new_tokens=12).sequences.tolist() == expected
        sequences = large.generate(
            **inputs, custom_generate=bild.custom_generate, small=small, policy=EXACT, max_new_tokens=12
        )
        assert sequences.tolist() == expected


def test_counts_leave_the_prompt_out():
    large, _ = family_pair("llama")
    inputs = inputs_of("llama", 0)
    out = bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=5)
    for row, count in enumerate(out.stats):
        assert 1 <= count.tokens == count.large_steps == len(out.trace[row]) <= 5
        assert [entry.token_id for entry in out.trace[row]] == out.sequences[row, 7 : 7 + count.tokens].tolist()


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}, "row 1 ends in padding.*pad on the left"),
        ({"attention_mask": None, "input_ids": torch.tensor([[PAD, 5, 6]])}, "holds the pad id 0 but there is no"),
        (
            {"input_ids": None, "attention_mask": torch.ones(2, 3)},
            "LlamaForCausalLM, reads input_ids, and there is none",
        ),
        ({"pixel_values": torch.ones(2, 3)}, "takes no pixel_values; it takes input_ids, attention_mask"),
        ({"decoder_input_ids": torch.ones(2, 1).long()}, "has no encoder; its prompt is input_ids"),
    ],
)
def test_bad_prompts(spoilt, message):
    large, small = family_pair("llama")
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [5, 6, 8]]), "attention_mask": torch.ones(2, 3).long(), **spoilt}
    with pytest.raises(ValueError, match=message):
        bild.generate(large, small, **inputs, policy=EXACT)


def test_misspelt_inputs_are_named():
    for name, given, taken in (("bart", "atention_mask", "input_ids, attention_mask"),
                               ("whisper", "input_ids", "input_features, attention_mask")):  # fmt: skip
        large, small = family_pair(name)
        inputs = {**inputs_of(name, 0), given: torch.ones(4, 7).long()}
        with pytest.raises(ValueError, match=f"takes no {given}; it takes {taken}"):
            bild.generate(large, small, **inputs, policy=EXACT)


# Lengths


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_a_given_config_sets_the_length_where_the_argument_does_not(name):
    large, _ = family_pair(name)
    inputs = inputs_of(name, 0)
    start = prompt_width(name, inputs)
    never = {"min_new_tokens": 200}

    def width(max_new_tokens=None, **fields):
        config = GenerationConfig(**never, **fields)
        out = bild.generate(
            large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=max_new_tokens, generation_config=config
        )
        return out.sequences.shape[1] - start

    assert width(max_new_tokens=3, **{"max_length": 30}) == 3
    assert width(**{"max_new_tokens": 5}) == 5
    assert width(**{"max_length": start + 4}) == 4
    if name == "llama":
        assert width() == 128
    with pytest.raises(
        ValueError, match=f"max_length={start} in generation_config leaves nothing to write after {start}"
    ):
        width(**{"max_length": start})


# Decoder prompts of encoder-decoders


def test_decoder_input_ids_are_the_whole_prompt():
    large, small = family_pair("mbart")
    inputs = inputs_of("mbart", 3)
    prompt = torch.tensor([[START, 7], [START, 8], [START, 9], [START, 7]])
    out = bild.generate(large, small, **inputs, decoder_input_ids=prompt, policy=EXACT, max_new_tokens=9)
    expected = large.generate(**inputs, decoder_input_ids=prompt, max_new_tokens=9, do_sample=False)
    assert out.sequences.tolist() == expected.tolist()


def test_decoder_prompts_of_different_lengths_are_refused():
    large, small = family_pair("mbart")
    prompt = torch.tensor([[START, 7], [PAD, START]])
    with pytest.raises(ValueError, match="decoder prompts of different lengths are not supported; decode their rows"):
        large.generate(
            **inputs_of("mbart", 3, [4, 4]), decoder_input_ids=prompt, decoder_attention_mask=(prompt != PAD).long(),
            custom_generate=bild.custom_generate, small=small, policy=EXACT, max_new_tokens=3,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (torch.ones(2, 1).long(), r"shape \(2, 1\); pass one row for each of 4 inputs"),
        (torch.ones(4, 0).long(), r"shape \(4, 0\); pass one row"),
        (torch.ones(4, 1), "must be .* token ids, got torch.float32"),
        (torch.full((4, 1), VOCAB), f"id {VOCAB}, but the large model embeds ids 0 to {VOCAB - 1}"),
        (torch.ones(4, 1, device="meta").long(), "decoder_input_ids are on meta, the models on cpu"),
    ],
)
def test_bad_decoder_input_ids(prompt, message):
    large, small = family_pair("bart")
    with pytest.raises(ValueError, match=message):
        bild.generate(large, small, **inputs_of("bart", 0), decoder_input_ids=prompt, policy=EXACT)
