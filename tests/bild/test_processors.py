"""Logits processors: transformers' generate() with the same generation config is the oracle, row by row."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import logits_process as lp
from transformers.generation.stopping_criteria import StoppingCriteria

import bild
from bild.processors import from_config, merge, process
from tests.bild.models import EOS, pair, sources

LENGTHS = [6, 2, 5]
FIELDS = {
    "repetition_penalty": {"repetition_penalty": 1.8},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 2.5},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "sequence_bias": {"sequence_bias": [[[12], 4.0], [[12, 9], -9.0]]},
    "bad_words_ids": {"bad_words_ids": [[20], [17], [2, 3]]},
    "min_length": {"min_length": 7, "eos_token_id": [EOS, 21, 20]},
    "min_new_tokens": {"min_new_tokens": 5, "eos_token_id": [EOS, 21, 20]},
    "forced_bos_token_id": {"forced_bos_token_id": 7},
    "forced_eos_token_id": {"forced_eos_token_id": EOS},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (3, 1.6)},
    "suppress_tokens": {"suppress_tokens": [12, 9, 13]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [13, 14, 22]},
    "begin after a forced one": {"begin_suppress_tokens": [12, 13, 21, 2], "forced_bos_token_id": 7},
    "several": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_length": 6, "suppress_tokens": [9]},
    "order": {"sequence_bias": [[[12], 6.0]], "repetition_penalty": 3.0, "encoder_repetition_penalty": 1.5},
}
EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.3, draft_length=4)


def theirs(model, ids, mask, fields, **arguments):
    config = GenerationConfig(max_new_tokens=9, do_sample=False, **fields)
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **arguments).tolist()


def ours(policy, large, small, ids, mask, fields, **arguments):
    return bild.generate(
        large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=9,
        generation_config=GenerationConfig(**fields), **arguments,
    ).sequences.tolist()  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_acts_as_in_transformers(name):
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    fields = FIELDS[name]
    expected = theirs(large, ids, mask, fields)
    ends = {name: value for name, value in fields.items() if name == "eos_token_id"}
    assert expected != theirs(large, ids, mask, ends), "this field changes nothing here: choose other values"
    for policy in (EXACT, bild.LargeOnly()):
        assert ours(policy, large, small, ids, mask, fields) == expected
    assert ours(bild.SmallOnly(), large, small, ids, mask, fields) == theirs(small, ids, mask, fields)


def test_a_partial_config_is_completed_from_the_large_model():
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    whole = bild.generate(large, small, ids, attention_mask=mask, policy=EXACT, max_new_tokens=9)
    assert any(EOS in row for row in whole.sequences.tolist())
    given = GenerationConfig()
    assert ours(EXACT, large, small, ids, mask, {}) == whole.sequences.tolist()
    bild.generate(large, small, ids, attention_mask=mask, policy=EXACT, max_new_tokens=1, generation_config=given)
    assert given.eos_token_id is None, "the user's own object stays as it was"


def test_sampling_fields_of_a_config_are_not_read():
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    fields = {"do_sample": True, "temperature": 9.0, "top_k": 2, "top_p": 0.1}
    assert ours(EXACT, large, small, ids, mask, fields) == ours(EXACT, large, small, ids, mask, {})


class Ban:
    """A processor of the user's own: bans the token after the last one."""

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores.scatter_(1, (input_ids[:, -1:] + 1) % scores.shape[1], -torch.inf)
        return scores


def test_processors_of_the_user_come_after_those_of_the_config():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    fields = {"no_repeat_ngram_size": 1}
    own = LogitsProcessorList([Ban()])
    expected = theirs(large, ids, mask, fields, logits_processor=own)
    assert expected != theirs(large, ids, mask, fields)
    assert ours(EXACT, large, small, ids, mask, fields, logits_processor=own) == expected


def test_a_processor_of_the_user_replaces_the_configs_own_of_its_type():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    fields = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 3}
    own = LogitsProcessorList([lp.RepetitionPenaltyLogitsProcessor(1.2)])
    expected = theirs(large, ids, mask, fields, logits_processor=own)
    assert expected != theirs(large, ids, mask, fields)
    assert ours(EXACT, large, small, ids, mask, fields, logits_processor=own) == expected
    built = LogitsProcessorList([lp.RepetitionPenaltyLogitsProcessor(5.0), lp.NoRepeatNGramLogitsProcessor(3)])
    assert merge(built, own) == [own[0], built[1]]


def test_a_neutral_config_builds_nothing():
    built = from_config(
        GenerationConfig(repetition_penalty=1.0, no_repeat_ngram_size=0, min_length=0, encoder_repetition_penalty=1.0),
        prompt_length=1, max_length=9, eos=[EOS], encoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
        device=torch.device("cpu"),
    )  # fmt: skip
    assert len(built) == 0


def test_process_gives_each_position_its_own_prefix_and_each_row_its_own_place():
    """A processor that adds 100 x row + prefix length, on rows that stand at different lengths."""

    class Add:
        def __call__(self, input_ids, scores):
            assert len(scores) == 3
            return scores + 100 * torch.arange(3).unsqueeze(-1) + input_ids.shape[1]

    raw = torch.zeros(3, 3, 2)
    tokens = torch.zeros(3, 9, dtype=torch.long)
    out = process(LogitsProcessorList([Add()]), raw, tokens, [2, 6, 1], [3, 1, 0])[..., 0].tolist()
    assert out == [[2, 3, 4], [106, 0, 0], [0, 0, 0]]
    assert raw.eq(0).all()


class AfterTwo(StoppingCriteria):
    """Ends a row once a token has come twice in a row."""

    def __call__(self, input_ids, scores, **kwargs):
        if input_ids.shape[1] < 3:
            return torch.zeros(len(input_ids), dtype=torch.bool)
        return input_ids[:, -1] == input_ids[:, -2]


def test_stopping_criteria_end_rows_as_in_transformers():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    expected = theirs(large, ids, mask, {}, stopping_criteria=StoppingCriteriaList([AfterTwo()]))
    assert expected != theirs(large, ids, mask, {})
    for policy in (EXACT, bild.LargeOnly()):
        assert ours(policy, large, small, ids, mask, {}, stopping_criteria=[AfterTwo()]) == expected
    expected = theirs(small, ids, mask, {}, stopping_criteria=StoppingCriteriaList([AfterTwo()]))
    assert ours(bild.SmallOnly(), large, small, ids, mask, {}, stopping_criteria=[AfterTwo()]) == expected


def test_min_new_tokens_replaces_min_length_as_in_transformers():
    large, small = pair(26)
    ids, mask = sources(26, [6, 6])
    config = GenerationConfig(min_length=11, min_new_tokens=2, max_new_tokens=13, do_sample=False)
    expected = large.generate(ids, attention_mask=mask, generation_config=config)
    out = bild.generate(
        large, small, ids, attention_mask=mask, policy=bild.LargeOnly(), generation_config=config
    ).sequences
    assert out.tolist() == expected.tolist()
    assert bool((out == EOS).any())
