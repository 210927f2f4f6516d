"""``model.generate(custom_generate=bild.custom_generate, ...)``: the same decoder behind transformers' own door."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

import bild
from tests.bild.models import EOS, START, pair, sources, tiny_t5

LENGTHS = [6, 2, 5]
MIXED = bild.BigLittle(fallback=0.5, rollback=1.5, draft_length=3)
EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.3)


def through_generate(large, small, policy, ids, mask, **arguments):
    return large.generate(
        input_ids=ids, attention_mask=mask, custom_generate=bild.custom_generate, small=small, policy=policy,
        **{"max_new_tokens": 9, "do_sample": False, **arguments},
    )  # fmt: skip


@pytest.mark.parametrize(
    "policy", [MIXED, EXACT, bild.BigLittle(rule="authors", draft_length=2, rollback=1.0)], ids=str
)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_text_is_that_of_bild_generate(policy, seed):
    large, small = pair(seed)
    ids, mask = sources(seed, LENGTHS)
    sequences = through_generate(large, small, policy, ids, mask)
    direct = bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=9)
    assert isinstance(sequences, torch.Tensor)
    assert sequences.tolist() == direct.sequences.tolist()
    if policy == EXACT:
        plain = large.generate(input_ids=ids, attention_mask=mask, max_new_tokens=9, do_sample=False)
        assert sequences.tolist() == plain.tolist()


def test_processors_and_lengths_of_the_call_count():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    fields = {
        "repetition_penalty": 1.6,
        "min_length": 5,
        "encoder_no_repeat_ngram_size": 1,
        "eos_token_id": [1, 21, 20],
    }
    sequences = through_generate(large, small, EXACT, ids, mask, **fields)
    plain = large.generate(input_ids=ids, attention_mask=mask, max_new_tokens=9, do_sample=False, **fields)
    assert sequences.tolist() == plain.tolist()
    by_length = through_generate(large, small, EXACT, ids, mask, max_new_tokens=None, max_length=4)
    assert by_length.shape == (3, 4)


def test_a_dictionary_if_asked_for():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    output = through_generate(large, small, MIXED, ids, mask, return_dict_in_generate=True)
    assert output.sequences.tolist() == through_generate(large, small, MIXED, ids, mask).tolist()


def test_sampling_takes_temperature_top_k_and_top_p_of_the_call():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    fields = {"do_sample": True, "temperature": 0.7, "top_k": 6, "top_p": 0.9}
    sequences = through_generate(large, small, MIXED, ids, mask, generator=torch.Generator().manual_seed(3), **fields)
    direct = bild.generate(
        large, small, ids, attention_mask=mask, policy=MIXED, max_new_tokens=9,
        generator=torch.Generator().manual_seed(3), **fields,
    )  # fmt: skip
    assert sequences.tolist() == direct.sequences.tolist()
    # The warpers act once, in the sampler: thresholds see plain probabilities.
    greedy = through_generate(large, small, MIXED, ids, mask)
    assert sequences.tolist() != greedy.tolist()


def test_the_large_encoder_runs_once(monkeypatch):
    large, small = tiny_t5(40), tiny_t5(41, layers=1)
    calls = {"large": 0, "small": 0}
    for name, model in (("large", large), ("small", small)):
        inner = model.encoder.forward

        def counted(*args, inner=inner, name=name, **kwargs):
            calls[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(model.encoder, "forward", counted)
    ids, mask = sources(0, LENGTHS)
    through_generate(large, small, MIXED, ids, mask)
    assert calls == {"large": 1, "small": 1}


def test_one_model_alone():
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    plain = large.generate(input_ids=ids, attention_mask=mask, max_new_tokens=9, do_sample=False)
    assert through_generate(large, None, bild.LargeOnly(), ids, mask).tolist() == plain.tolist()
    plain = small.generate(input_ids=ids, attention_mask=mask, max_new_tokens=9, do_sample=False)
    assert through_generate(large, small, bild.SmallOnly(), ids, mask).tolist() == plain.tolist()


def test_a_decoder_prompt_of_several_tokens():
    large, small = pair(0)
    ids, mask = sources(0, [5, 3])
    prompt = torch.tensor([[START, 13, 17], [START, 4, 9]])
    sequences = through_generate(large, small, EXACT, ids, mask, decoder_input_ids=prompt)
    plain = large.generate(
        input_ids=ids, attention_mask=mask, decoder_input_ids=prompt, max_new_tokens=9, do_sample=False
    )
    assert sequences.tolist() == plain.tolist()
    mixed = through_generate(large, small, MIXED, ids, mask, decoder_input_ids=prompt)
    alone = through_generate(large, small, MIXED, ids[1:, :3], mask[1:, :3], decoder_input_ids=prompt[1:])
    assert mixed[1, : alone.shape[1]].tolist() == alone[0].tolist()


def test_an_eos_of_a_rollback_goes_on_under_the_authors_rule():
    """transformers' own EOS criterion would end the row; the loop decides alone."""
    large, small = pair(5)
    ids, mask = (rows[2:3] for rows in sources(5, [7, 5, 3, 1]))
    policy = bild.BigLittle(rule="authors", rollback=0.0, fallback=0.0, draft_length=3)
    trace = bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=9).trace[0]
    replacement = next(entry.token_id for entry in trace if entry.reason == "rollback")
    ends = [EOS, replacement]
    sequences = through_generate(large, small, policy, ids, mask, eos_token_id=ends)
    direct = bild.generate(
        large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=9,
        generation_config=GenerationConfig(eos_token_id=ends),
    )  # fmt: skip
    assert sequences.tolist() == direct.sequences.tolist()
    assert replacement in sequences[0, 1:-1].tolist()


class AfterFour(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 5)


def test_stopping_criteria_of_the_call_count():
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    criteria = StoppingCriteriaList([AfterFour()])
    assert through_generate(large, small, MIXED, ids, mask, stopping_criteria=criteria).shape == (3, 5)


@pytest.mark.parametrize("field", ["num_beams", "num_return_sequences"])
def test_several_sequences_are_refused(field):
    large, small = pair(0)
    ids, mask = sources(0, [3])
    with pytest.raises(ValueError, match=f"{field}=3 is not supported.*leave it at 1"):
        through_generate(large, small, MIXED, ids, mask, do_sample=True, **{field: 3})


@pytest.mark.parametrize("field", [{"min_p": 0.1}, {"typical_p": 0.5}, {"epsilon_cutoff": 0.01}, {"eta_cutoff": 0.01}])
def test_other_sampling_methods_are_refused_by_name(field):
    large, small = pair(0)
    ids, mask = sources(0, [3])
    with pytest.raises(ValueError, match="Warper is not supported; use temperature, top_k and top_p"):
        through_generate(large, small, MIXED, ids, mask, do_sample=True, **field)


def test_what_is_missing_is_named():
    large, small = pair(0)
    ids, mask = sources(0, [3])
    with pytest.raises(ValueError, match=r"custom_generate needs policy=\.\.\."):
        through_generate(large, small, None, ids, mask)
    with pytest.raises(ValueError, match=r"needs a small model; pass small=\.\.\."):
        through_generate(large, None, MIXED, ids, mask)
    with pytest.raises(ValueError, match="rule='authors' is greedy only"):
        through_generate(large, small, bild.BigLittle(rule="authors"), ids, mask, do_sample=True)
    with pytest.raises(ValueError, match="id 23, but the small model embeds ids 0 to 9"):
        through_generate(large, tiny_t5(1, vocab=10), MIXED, torch.tensor([[5, 23]]), torch.ones(1, 2))


@pytest.mark.parametrize("field", ["output_scores", "output_logits", "output_attentions", "output_hidden_states"])
def test_what_is_not_kept_is_refused_by_name(field):
    large, small = pair(0)
    ids, mask = sources(0, LENGTHS)
    with pytest.raises(ValueError, match=rf"{field}=True is not supported: they are not kept"):
        through_generate(large, small, MIXED, ids, mask, return_dict_in_generate=True, **{field: True})
