"""The decoder against the naive loops of ``oracle.py``: the same tokens and the same counts, in float64."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as lp

import bild
from bild.sampling import Sampler
from tests.bild.fakes import hashed, run
from tests.bild.models import EOS, PAD, START, VOCAB, pair, sources, tiny_t5
from tests.bild.oracle import Setting, authors_loop, function_scorer, paper_loop, t5_scorer

LOOPS = {"paper": paper_loop, "authors": authors_loop}
THRESHOLDS = [(0.0, 1.0), (0.4, 0.0), (0.4, 1.0), (0.6, 2.0), (0.3, 0.3), (0.9, 0.5), (0.5, float("inf"))]


def processor_lists() -> dict[str, tuple[dict[str, object], LogitsProcessorList]]:
    """Fields of a generation config, and the processors that they mean for one row."""
    return {
        "none": ({}, LogitsProcessorList()),
        "repetition": (
            {"repetition_penalty": 1.7},
            LogitsProcessorList([lp.RepetitionPenaltyLogitsProcessor(1.7)]),
        ),
        "ngram and length": (
            {"no_repeat_ngram_size": 2, "min_length": 9},
            LogitsProcessorList([lp.NoRepeatNGramLogitsProcessor(2), lp.MinLengthLogitsProcessor(9, [EOS, 12])]),
        ),
    }


def policy_of(setting: Setting, rule: str) -> bild.BigLittle:
    return bild.BigLittle(
        fallback=setting.fallback,
        rollback=setting.rollback,
        draft_length=setting.draft_length,
        verify_eos=setting.verify_eos,
        rule=rule,
    )


@pytest.mark.parametrize("rule", ["paper", "authors"])
@pytest.mark.parametrize("processors", processor_lists())
def test_t5_pairs_decode_as_the_naive_loop(rule, processors):
    fields, built = processor_lists()[processors]
    eos = (EOS, 12)
    config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=list(eos), **fields)
    lengths = [7, 1, 4]
    happened = dict.fromkeys(("accepted", "rolled_back", "fallbacks"), 0)
    for index, (fallback, rollback) in enumerate(THRESHOLDS):
        seed = (0, 3, 5)[index % 3]
        large, small = pair(seed)
        ids, mask = sources(seed, lengths)
        setting = Setting(
            fallback, rollback, draft_length=1 + index, max_new_tokens=12, eos=eos, processors=built,
            verify_eos=rule == "paper" and index % 2 == 0,
        )  # fmt: skip
        out = bild.generate(
            large, small, ids, attention_mask=mask, policy=policy_of(setting, rule), max_new_tokens=12,
            generation_config=config,
        )  # fmt: skip
        for row, length in enumerate(lengths):
            source = ids[row : row + 1, :length]
            naive = LOOPS[rule](t5_scorer(large, source, VOCAB), t5_scorer(small, source, VOCAB), setting)
            padding = out.sequences.shape[1] - 1 - len(naive.tokens)
            assert out.sequences[row, 1:].tolist() == naive.tokens + [PAD] * padding
            assert asdict(out.stats[row]) == naive.counts()
            for name in happened:
                happened[name] += getattr(out.stats[row], name)
    assert all(count > 0 for count in happened.values()), happened


@pytest.mark.parametrize("width", [20, VOCAB + 5])
def test_heads_of_different_width_decode_as_the_naive_loop(width):
    """What a narrow head lacks has probability zero, what a wide one has too much is not there."""
    large = pair(0)[0]
    small = tiny_t5(7, layers=1, vocab=width)
    with torch.no_grad():
        small.lm_head.weight.mul_(0.3)  # so flat that four more ids would show
    # An id that the narrow model cannot embed ends the row, so that it never has to.
    eos = (EOS, 20, 21, 22, 23)
    setting = Setting(fallback=0.17, rollback=3.0, draft_length=3, max_new_tokens=10, eos=eos)
    lengths = [7, 2, 4, 5]
    ids, mask = sources(2, lengths, vocab=20)
    out = bild.generate(
        large, small, ids, attention_mask=mask, policy=policy_of(setting, "paper"), max_new_tokens=10,
        generation_config=GenerationConfig(eos_token_id=list(eos)),
    )  # fmt: skip
    for row, length in enumerate(lengths):
        source = ids[row : row + 1, :length]
        naive = paper_loop(t5_scorer(large, source, VOCAB), t5_scorer(small, source, VOCAB), setting)
        assert out.sequences[row, 1 : 1 + len(naive.tokens)].tolist() == naive.tokens
        assert asdict(out.stats[row]) == naive.counts()
    assert sum(count.drafted for count in out.stats) > 0
    assert sum(count.fallbacks for count in out.stats) > 0


SETTINGS = st.builds(
    Setting,
    fallback=st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5]),
    rollback=st.sampled_from([0.0, 0.1, 0.7, 1.5, 3.0, float("inf")]),
    draft_length=st.integers(1, 6),
    max_new_tokens=st.integers(1, 14),
    verify_eos=st.booleans(),
    eos=st.sampled_from([(), (1,), (3, 5)]),
)


@settings(max_examples=40, derandomize=True)
@given(setting=SETTINGS, seed=st.integers(0, 10_000), batch_size=st.integers(1, 4), rule=st.sampled_from(list(LOOPS)))
def test_any_thresholds_lengths_and_batch_sizes_decode_as_the_naive_loop(setting, seed, batch_size, rule):
    if rule == "authors":
        setting = replace(setting, verify_eos=False)
    vocab = 8
    larges = [hashed(seed + row, vocab) for row in range(batch_size)]
    smalls = [hashed(-seed - row - 1, vocab, twin=seed + row) for row in range(batch_size)]
    written, stats, traces, _ = run(
        larges, smalls, policy_of(setting, rule), vocab_size=vocab, max_new_tokens=setting.max_new_tokens,
        eos=setting.eos,
    )  # fmt: skip
    for row in range(batch_size):
        naive = LOOPS[rule](function_scorer(larges[row]), function_scorer(smalls[row]), setting)
        assert written[row] == naive.tokens
        assert asdict(stats[row]) == naive.counts()
        assert [entry.token_id for entry in traces[row] if entry.reason != "discarded"] == naive.tokens


@settings(max_examples=40, derandomize=True)
@given(
    setting=SETTINGS,
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.5, 1.0, 1.8]),
    with_processor=st.booleans(),
)
def test_sampling_takes_the_numbers_of_the_naive_loop(setting, seed, temperature, with_processor):
    vocab = 8
    if with_processor:
        setting = replace(setting, processors=LogitsProcessorList([lp.RepetitionPenaltyLogitsProcessor(2.5)]))
    large, small = hashed(seed, vocab), hashed(-seed - 1, vocab, twin=seed)
    generator = torch.Generator().manual_seed(seed)
    written, stats, _, _ = run(
        large, small, policy_of(setting, "paper"), vocab_size=vocab, max_new_tokens=setting.max_new_tokens,
        eos=setting.eos, sampler=Sampler(do_sample=True, temperature=temperature), generators=[generator],
        processors=setting.processors,
    )  # fmt: skip
    again = torch.Generator().manual_seed(seed)
    naive = paper_loop(
        function_scorer(large),
        function_scorer(small),
        setting,
        tempered=lambda processed: torch.softmax(processed / temperature, -1).tolist(),
        uniforms=lambda n: torch.rand(n, generator=again).tolist(),
    )
    assert written[0] == naive.tokens
    assert asdict(stats[0]) == naive.counts()
