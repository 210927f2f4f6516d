"""Speculative decoding: the large model's text, whatever drafts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bild
from bild.engine import make_runner
from bild.policies import speculation
from bild.sampling import Sampler
from bild.types import Draft, Scores, Steps
from tests.bild.fakes import counting, hashed, reasons, run
from tests.bild.laws import Law, law_of_one_model, p_value
from tests.bild.models import LENGTHS, assert_a_batch_is_its_rows, pair, sources, tiny_t5

PLAIN = Sampler(do_sample=True)


# A real pair, on every engine


ENGINES = ["hf", "static", "static+int8"]


def tiny_pair(vocab: int, dtype: torch.dtype = torch.float64):
    large = tiny_t5(31, vocab=vocab, dtype=dtype)
    small = tiny_t5(32, layers=1, vocab=vocab, like=large, dtype=dtype)
    with torch.no_grad():
        for model in (large, small):
            model.lm_head.weight.mul_(0.3)
    return large, small


@torch.no_grad()
def law_on(engine: str, model, ids: torch.Tensor, sampler: Sampler, length: int) -> Law:
    runner = make_runner(model, engine, length + 1)

    def probs(prefix):
        runner.prefill(input_ids=ids, attention_mask=torch.ones_like(ids))
        logits = runner.extend(torch.tensor([prefix]), [len(prefix)])[0, -1]
        return sampler.distribution(logits.double()).tolist()

    return law_of_one_model(probs, length)


@pytest.mark.parametrize(("engine", "shortlist"), [("hf", None), ("static", [2, 4]), ("static+int8", None)])
def test_a_t5_pair_samples_from_the_large_model(engine, shortlist):
    large, small = tiny_pair(6, torch.float32)
    ids, _ = sources(4, [4], vocab=6)
    sampler = Sampler(do_sample=True, temperature=1.2)
    out = bild.generate(
        large, small, ids.expand(4000, -1), policy=bild.Speculative(draft_length=2), max_new_tokens=3, do_sample=True,
        temperature=1.2, generator=torch.Generator().manual_seed(0), engine=engine, shortlist=shortlist,
    )  # fmt: skip
    samples = [tuple(row[1 : 1 + count.tokens]) for row, count in zip(out.sequences.tolist(), out.stats, strict=True)]
    assert min(sum(count.rolled_back for count in out.stats), sum(count.accepted for count in out.stats)) > 500
    assert p_value(samples, law_on(engine, large, ids, sampler, 3)) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("draft_length", [1, 3, 20])
def test_greedy_is_the_large_model(engine, draft_length):
    large, small = pair(2)
    ids, mask = sources(2, [6, 1, 4, 3])
    policies = (bild.LargeOnly(), bild.Speculative(draft_length=draft_length))
    drafters = [small, tiny_t5(77, layers=1), bild.EarlyExit(1)]
    alone = bild.generate(large, None, ids, attention_mask=mask, policy=policies[0], max_new_tokens=12, engine=engine)
    for drafter in drafters:
        out = bild.generate(
            large, drafter, ids, attention_mask=mask, policy=policies[1], max_new_tokens=12, engine=engine
        )
        assert out.sequences.equal(alone.sequences)


@pytest.mark.parametrize("shortlist", [[3, 4, 5, 8, 9, 11], None])
def test_batch_is_row_by_row(shortlist):
    keywords = {
        "policy": bild.Speculative(draft_length=4, lenience=0.2, beta="normalized"),
        "max_new_tokens": 9, "do_sample": True, "temperature": 1.5, "shortlist": shortlist,
    }  # fmt: skip
    assert_a_batch_is_its_rows(**keywords)
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    many = bild.generate_many(
        large, small, [row[:n] for row, n in zip(ids, LENGTHS, strict=True)], batch_size=2,
        **keywords | {"generator": torch.Generator().manual_seed(5)},
    )  # fmt: skip
    at_once = bild.generate(
        large, small, ids, attention_mask=mask, **keywords | {"generator": torch.Generator().manual_seed(5)}
    )
    for (index, out), expected in zip(many, at_once.stats, strict=True):
        assert out.stats[0] == expected
        assert out.sequences[0].equal(at_once.sequences[index, : 1 + expected.tokens])


# Greedy, on hand-made models


@settings(max_examples=30, derandomize=True)
@given(seed=st.integers(0, 10**6), draft_length=st.integers(1, 6), related=st.booleans(), limit=st.integers(1, 9))
def test_any_draft_gives_the_large_models_choice(seed, draft_length, related, limit):
    larges = [hashed(seed + row, 6) for row in range(3)]
    smalls = [hashed(seed + 10 + row, 6, twin=seed + row if related else None) for row in range(3)]
    expected, _, _, _ = run(larges, None, bild.LargeOnly(), vocab_size=6, max_new_tokens=limit)
    written, stats, traces, _ = run(
        larges, smalls, bild.Speculative(draft_length=draft_length), vocab_size=6, max_new_tokens=limit
    )
    assert written == expected
    for count, trace in zip(stats, traces, strict=True):
        assert count.drafted == count.small_steps == count.accepted + count.rolled_back
        assert count.large_steps == count.rounds
        assert count.tokens == len([entry for entry in trace if entry.reason != "discarded"])


def test_an_accepted_eos_closes_the_row_and_gets_no_bonus():
    model = counting(20, sure=0.9)
    written, stats, traces, _ = run(
        model, model, bild.Speculative(draft_length=3), vocab_size=20, max_new_tokens=9, eos=(7,)
    )
    assert written == [[2, 3, 4, 5, 6, 7]]
    assert reasons(traces[0]) == ["draft"] * 3 + ["bonus"] + ["draft"] * 2
    assert (stats[0].large_steps, stats[0].small_steps) == (2, 5)


def test_a_draft_never_passes_the_limit_and_gets_no_bonus_there():
    model = counting(20, sure=0.9)
    written, stats, traces, _ = run(model, model, bild.Speculative(), vocab_size=20, max_new_tokens=8)
    assert written == [[2, 3, 4, 5, 6, 7, 8, 9]]
    assert reasons(traces[0]) == ["draft"] * 5 + ["bonus"] + ["draft"] * 2
    assert stats[0].large_steps == 2


def test_equal_logits_go_to_the_large_models_first():
    """The large model gives 2 and 3 the same; it would write 2, and so does the pair, though the small one drafts 3."""

    def large(prefix):
        return [0.0, -9.0, 5.0, 5.0]

    def small(prefix):
        return [0.0, -9.0, 4.0, 5.0]

    policy = bild.Speculative(draft_length=2)
    assert run(large, small, policy, vocab_size=4, max_new_tokens=5)[0] == [[2] * 5]
    lenient = bild.Speculative(draft_length=2, lenience=0.01)
    assert run(large, small, lenient, vocab_size=4, max_new_tokens=6)[0] == [[3, 3, 2] * 2]


# The shared step


def test_columns_beyond_a_rows_draft_decide_nothing():
    draft = Draft(
        tokens=torch.zeros(3, 2, dtype=torch.long),
        n_drafted=torch.tensor([2, 1, 0]),
        stopped=torch.zeros(3, dtype=torch.bool),
        looked_ahead=torch.zeros(3, dtype=torch.bool),
        token_probs=torch.ones(3, 2),
        small=Steps((), 3, 4),
    )
    assert speculation.leading(draft, torch.tensor([[True, False]] * 3)).tolist() == [1, 1, 0]
    assert speculation.leading(draft, torch.tensor([[True, True]] * 3)).tolist() == [2, 1, 0]
    assert speculation.leading(draft, torch.tensor([[False, True]] * 3)).tolist() == [0, 0, 0]
    # A column past the draft that would stand, before one that would not.
    longer = dataclasses.replace(draft, tokens=torch.zeros(3, 3, dtype=torch.long))
    assert speculation.leading(longer, torch.tensor([[True, True, False]] * 3)).tolist() == [2, 1, 0]


def test_what_rounding_leaves_nothing_of_is_drawn_from_the_target():
    target = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    small = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    assert speculation.residual(target, small).tolist() == [[0.5, 0.5], [0.5, 0.0]]


def test_what_the_small_model_said_is_spread_over_the_whole_vocabulary():
    first, second = torch.tensor([[[2.0, 6.0]]]).log(), torch.tensor([[[1.0, 3.0, 4.0]]]).log()
    each = [Scores(first, first, PLAIN, torch.tensor([1, 4])), Scores(second, second, PLAIN, torch.tensor([0, 2, 3]))]
    steps = Steps(each, 3, 5)
    expected = [[0, 0.25, 0, 0, 0.75], [0.125, 0, 0.375, 0.5, 0], [0] * 5]
    assert steps.plain[0].tolist() == steps.tempered[0].tolist() == [pytest.approx(row) for row in expected]
    assert steps.choice.tolist() == [[4, 3, 0]]
    assert steps.confidence[0].tolist() == pytest.approx([0.75, 0.5, 0])


@pytest.mark.parametrize("width", [2, 3, 4, 6])
@pytest.mark.parametrize("cuts", [(0, 4), (0, 1, 4), (0, 3, 4)])
def test_steps_that_were_taken_at_once_are_those_that_were_taken_one_by_one(cuts, width):
    raw = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))

    def steps(cuts):
        each = [raw[:, first:last] for first, last in itertools.pairwise(cuts)]
        return Steps([Scores(one, one, PLAIN) for one in each], width, 5)

    at_once, one_by_one = steps(cuts), steps(range(min(width, 4) + 1))
    for view in ("plain", "tempered", "confidence", "choice"):
        assert getattr(at_once, view).equal(getattr(one_by_one, view))


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draft_length": 0}, r"draft_length=0 must be a whole number >= 1"),
        ({"draft_length": True}, r"draft_length=True must be"),
        ({"lenience": -0.1}, r"lenience=-0.1 must be in \[0, 1\)"),
        ({"lenience": 1.0}, r"lenience=1.0 must be"),
        ({"lenience": math.nan}, r"lenience=nan must be"),
        ({"beta": "normalised"}, r"beta='normalised' must be 'normalized', a number or None"),
        ({"beta": 0.5}, r"beta=0.5 must be at least 1 - lenience = 1"),
        ({"beta": 0.5, "lenience": 0.4}, r"at least 1 - lenience = 0.6"),
        ({"beta": math.nan}, r"beta=nan must be at least"),
        ({"beta": math.inf}, r"beta=inf must be at least .*, and finite"),
    ],
)
def test_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        bild.Speculative(**arguments)
