"""Decoding with draft sources that are no models: the text is the large model's, whatever they guess."""

from __future__ import annotations

import pytest
import torch

import bild
from bild.sampling import Sampler
from tests.bild import laws
from tests.bild.families import family_pair, inputs_of
from tests.bild.models import EOS, VOCAB, sources, tiny_t5
from tests.bild.oracle import t5_scorer

LENGTHS = [9, 2, 6]
ROWS = 2500
EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, draft_length=4)
LOSSLESS = [EXACT, bild.Speculative(draft_length=3)]
OTHERS = [
    bild.BigLittle(rollback=1.0, verify_eos=True, draft_length=3),
    bild.Speculative(draft_length=3, lenience=0.4, beta="normalized"),
    bild.SpeculativeCascade(rule="bild", alpha=2.0, bonus="large"),
    bild.SpeculativeCascade(rule="token_v3", alpha=0.5, bonus="large"),
    bild.OracleMixing(threshold=0.1),
]
BIGRAM = bild.Bigram({token: 2 + (5 * token) % (VOCAB - 2) for token in range(0, VOCAB, 2)})
SOURCES = [bild.PromptLookup(), bild.PromptLookup(max_ngram=2, min_ngram=2), BIGRAM]


def written(out) -> list[list[int]]:
    return [[t.token_id for t in trace if t.reason != "discarded"] for trace in out.trace]


def drafted(out) -> int:
    return sum(row.drafted for row in out.stats)


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
@pytest.mark.parametrize("engine", ["hf", "static", "static+int8"])
def test_the_text_is_the_large_models(source, policy, engine):
    for seed in range(3):
        large = tiny_t5(seed)
        ids, mask = sources(seed, LENGTHS)
        call = {"attention_mask": mask, "max_new_tokens": 16, "engine": engine}
        plain = bild.generate(large, None, ids, policy=bild.LargeOnly(), **call)
        out = bild.generate(large, source, ids, policy=policy, **call)
        assert out.sequences.tolist() == plain.sequences.tolist()
        assert drafted(out) > 0


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_prompts_other_families_and_the_other_door(source, policy, name):
    large, _ = family_pair(name)
    inputs = inputs_of(name, 3, [7, 2, 5])
    plain = bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=14)
    out = bild.generate(large, source, **inputs, policy=policy, max_new_tokens=14)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert drafted(out) > 0
    through = large.generate(
        **inputs, max_new_tokens=14, do_sample=False, custom_generate=bild.custom_generate, small=source, policy=policy
    )
    assert through.tolist() == out.sequences.tolist()


def test_an_encoder_that_reads_no_tokens_leaves_the_text_so_far():
    large, _ = family_pair("whisper")
    inputs = inputs_of("whisper", 3, [1, 1])
    plain = bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=14)
    out = bild.generate(large, bild.PromptLookup(), **inputs, policy=EXACT, max_new_tokens=14)
    assert out.sequences.tolist() == plain.sequences.tolist()


@pytest.mark.parametrize("source", [bild.PromptLookup(), BIGRAM], ids=str)
@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
def test_samples_follow_the_large_model(source, policy):
    large = tiny_t5(31, vocab=laws.VOCAB + 1)
    with torch.no_grad():
        large.lm_head.weight.mul_(0.3)
    source = bild.Bigram({0: 2, 2: 3, 3: 3, 4: 2}) if source is BIGRAM else source
    ids = torch.tensor([[3, 2, 4, 3, 5]])
    sampler = Sampler(do_sample=True, temperature=1.2)
    score = t5_scorer(large, ids, laws.VOCAB + 1)
    law = laws.law_of_one_model(lambda prefix: sampler.distribution(score(list(prefix))[-1]).tolist(), 4)
    out = bild.generate(
        large, source, ids.expand(ROWS, -1), policy=policy, max_new_tokens=4, do_sample=True, temperature=1.2,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert sum(count.rolled_back for count in out.stats) > 1000
    assert sum(count.accepted for count in out.stats) > 300
    assert laws.p_value([tuple(row) for row in written(out)], law) > 1e-3


@pytest.mark.parametrize("policy", OTHERS, ids=str)
@pytest.mark.parametrize("source", [bild.PromptLookup(), BIGRAM], ids=str)
def test_rows_do_not_depend_on_their_batch(source, policy):
    large = tiny_t5(1)
    ids, mask = sources(1, [9, 2, 6, 4, 7])
    rows = [one[: int(length)] for one, length in zip(ids, mask.sum(-1), strict=True)]
    for sampling in ({}, {"do_sample": True, "temperature": 1.3, "top_k": 9}):

        def call(seed=4, sampling=sampling):
            generator = torch.Generator().manual_seed(seed)
            return {"policy": policy, "max_new_tokens": 10, **sampling} | ({"generator": generator} if sampling else {})

        seeds = torch.randint(2**62, (len(rows),), generator=torch.Generator().manual_seed(4)).tolist()
        alone = []
        for row, seed in zip(rows, seeds, strict=True):
            one = call(seed)
            alone.append(bild.generate(large, source, row[None], **one | {"generator": [one.get("generator")]}))
        batch = bild.generate(large, source, ids, attention_mask=mask, **call())
        assert written(batch) == [written(one)[0] for one in alone]
        assert batch.stats == [one.stats[0] for one in alone]
        many = bild.generate_many(large, source, rows, batch_size=2, **call())
        assert [(written(one)[0], one.stats) for _, one in many] == [(written(one)[0], one.stats) for one in alone]
        assert drafted(batch) > 0


def test_silence_is_no_draft():
    """A row in which nothing is found goes on with the large model alone; its neighbours draft."""
    large = tiny_t5(2)
    ids, mask = sources(2, [6, 6])
    silent = bild.generate(
        large, bild.PromptLookup(max_ngram=9, min_ngram=9), ids, attention_mask=mask, policy=EXACT, max_new_tokens=8
    )
    assert drafted(silent) == 0
    assert {t.reason for trace in silent.trace for t in trace} == {"large"}
    assert [row.large_steps for row in silent.stats] == [row.tokens for row in silent.stats]
    assert [row.small_steps for row in silent.stats] == [row.rounds for row in silent.stats]


def test_a_text_that_repeats_itself_takes_few_large_steps():
    """A large model that writes one token for ever: lookup drafts it, four at a time and one behind them."""
    large = tiny_t5(3)
    with torch.no_grad():
        large.lm_head.weight.zero_()
        large.lm_head.weight[5] = 1.0
        large.decoder.final_layer_norm.weight.fill_(1.0)
    ids, mask = sources(3, [5])
    plain = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=30)
    out = bild.generate(large, bild.PromptLookup(), ids, attention_mask=mask, policy=EXACT, max_new_tokens=30)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert len(set(out.sequences[0, 1:].tolist())) == 1, "make a model that repeats itself"
    assert out.stats[0].tokens / out.stats[0].large_steps > 3


@pytest.mark.parametrize("fields", [
    {"no_repeat_ngram_size": 2}, {"min_length": 9}, {"exponential_decay_length_penalty": (2, 1.8)},
    {"repetition_penalty": 1.7}, {"forced_eos_token_id": EOS}, {"bad_words_ids": [[7], [4, 9]]},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
@pytest.mark.parametrize("source", [bild.PromptLookup(), BIGRAM], ids=str)
def test_a_guess_that_the_processors_forbid_is_no_guess(source, fields):
    large = tiny_t5(0)
    ids, mask = sources(0, LENGTHS)
    config = bild.api.GenerationConfig(**fields, eos_token_id=[EOS, 6])
    call = {"attention_mask": mask, "max_new_tokens": 14, "generation_config": config}
    plain = bild.generate(large, None, ids, policy=bild.LargeOnly(), **call)
    out = bild.generate(large, source, ids, policy=EXACT, **call)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert drafted(out) > 0
