"""Policies on distributions written down by hand, with the answers spelled out."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

import bild
from bild.policies.fallback import BelowFallback
from bild.policies.rollback import over_threshold
from bild.sampling import Sampler
from bild.types import Draft, Scores, Steps, Verdict

NAN = [math.nan] * 4
A, B, C, D = range(4)


def logits(rows: list[list[list[float]]]) -> Tensor:
    """Probabilities (B, K+1, V) to logits."""
    return torch.tensor(rows, dtype=torch.float64).log()


def scores(processed: list, raw: list | None = None, **sampler: object) -> Scores:
    given = logits(processed)
    return Scores(raw=given if raw is None else logits(raw), processed=given, sampler=Sampler(**sampler))


def said(probs: Tensor) -> Scores:
    """(B, V) probabilities as scores of (B, 1) positions."""
    given = probs.log().unsqueeze(1)
    return Scores(raw=given, processed=given, sampler=Sampler())


def draft(tokens: list[list[int]], n_drafted: list[int] | None = None, stopped: list[bool] | None = None) -> Draft:
    ids = torch.tensor(tokens, dtype=torch.long).reshape(len(tokens), -1)
    return Draft(
        tokens=ids,
        n_drafted=torch.tensor([ids.shape[1]] * len(tokens) if n_drafted is None else n_drafted),
        stopped=torch.tensor([False] * len(tokens) if stopped is None else stopped),
        looked_ahead=torch.zeros(len(tokens), dtype=torch.bool),
        token_probs=torch.ones(ids.shape),
        small=Steps((), ids.shape[1] + 1, 4),
    )


def verdict(policy: bild.BigLittle, drafted: Draft, large: Scores, uniforms: Tensor | None = None) -> Verdict:
    return policy.verify(drafted, large, uniforms)


def answers(given: Verdict) -> list[tuple[int, int, bool]]:
    skips = torch.zeros_like(given.n_accepted, dtype=torch.bool) if given.skip_draft is None else given.skip_draft
    return list(zip(given.n_accepted.tolist(), given.next_token.tolist(), skips.tolist(), strict=True))


# Fallback


def test_a_probability_equal_to_the_threshold_still_drafts():
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.49, 0.26, 0.25], [0.0, 0.5, 0.5]], dtype=torch.float64)
    assert BelowFallback(0.5)(said(probs), torch.tensor([[0], [3], [9]])).tolist() == [[False], [True], [False]]


def test_fallback_zero_always_drafts_and_one_drafts_only_certainty():
    probs, drafted = torch.tensor([[1.0, 0.0], [0.999, 0.001]]), torch.tensor([[0], [3]])
    policy = bild.BigLittle(fallback=0.0)
    assert policy.stop_rule(said(probs), drafted).tolist() == [[False], [False]]
    assert bild.BigLittle(fallback=1.0).stop_rule(said(probs), drafted).tolist() == [[False], [True]]
    assert bild.BigLittle(fallback=1.0).max_draft == 10
    assert bild.BigLittle(fallback=1.0001).max_draft == 0


# Rollback, the paper's rule


def test_a_cross_entropy_equal_to_the_threshold_stands():
    log_probs = torch.tensor([[-2.0, -2.0 - 1e-9]], dtype=torch.float64)
    assert over_threshold(draft([[A, A]]), log_probs, 2.0).tolist() == [[False, True]]
    assert over_threshold(draft([[A, B]]), log_probs.flip(-1), 2.0).tolist() == [[True, False]]


def test_columns_beyond_a_rows_draft_are_never_over_the_threshold():
    drafted = draft([[A, A], [A, A]], n_drafted=[1, 0])
    assert over_threshold(drafted, torch.full((2, 2), -9.0), 1.0).tolist() == [[True, False], [False, False]]


def test_log_probabilities_of_tokens_are_those_of_the_whole_distribution():
    logits = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0)) * 40
    logits[0, 0, 3] = -torch.inf
    both = Scores(raw=logits, processed=logits.roll(1, -1), sampler=Sampler())
    tokens = torch.tensor([[4, 7], [49, 0]])
    for one, of in ((both, both.processed), (both.unprocessed, both.raw)):
        expected = torch.log_softmax(of, -1)[:, :2].gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(one.log_plain_of(tokens), expected)
    assert both.unprocessed.log_plain_of(torch.tensor([[3], [3]]))[0, 0] == -torch.inf
    assert both.log_plain_of(both.processed.argmin(-1)).isfinite()[1].all()  # e^-150 is no float32


def test_paper_a_draft_that_surprises_nobody_stands_and_gets_a_bonus():
    large = scores([[[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]])
    assert answers(verdict(bild.BigLittle(rollback=1.0), draft([[A, B]]), large)) == [(2, D, False)]


def test_paper_the_first_disagreement_over_the_threshold_is_replaced():
    # -log 0.1 = 2.30, -log 0.3 = 1.20
    large = scores([[[0.3, 0.6, 0.05, 0.05], [0.1, 0.8, 0.05, 0.05], [0.1, 0.05, 0.8, 0.05], [0.1, 0.1, 0.1, 0.7]]])
    drafted = draft([[A, A, A]])
    assert answers(verdict(bild.BigLittle(rollback=2.31), drafted, large)) == [(3, D, False)]
    assert answers(verdict(bild.BigLittle(rollback=2.0), drafted, large)) == [(1, B, False)]
    assert answers(verdict(bild.BigLittle(rollback=1.0), drafted, large)) == [(0, B, False)]
    assert answers(verdict(bild.BigLittle(rollback=math.inf), drafted, large)) == [(3, D, False)]


OVER_BUT_AGREED = [[[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.1, 0.1, 0.7]]]
"""At the draft A, A with rollback 0.9: A is the argmax at the first position, yet over (-log 0.4 = 0.92)."""


def test_paper_skips_a_position_over_the_threshold_where_the_large_model_agrees():
    large, drafted = scores(OVER_BUT_AGREED), draft([[A, A]])
    assert answers(verdict(bild.BigLittle(rollback=0.9), drafted, large)) == [(1, C, False)]
    assert answers(verdict(bild.BigLittle(rollback=2.31), drafted, large)) == [(2, D, False)]


def test_paper_rows_of_unequal_drafts():
    row = [[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]]
    large = scores([row, [row[0], row[1], NAN], [row[0], NAN, NAN]])
    drafted = draft([[B, C], [B, A], [A, A]], n_drafted=[2, 1, 0])
    assert answers(verdict(bild.BigLittle(rollback=1.0), drafted, large)) == [
        (2, D, False),
        (1, C, False),
        (0, B, False),
    ]


def test_paper_an_empty_batch_of_drafts_is_one_large_step():
    large = scores([[[0.1, 0.7, 0.1, 0.1]], [[0.1, 0.1, 0.7, 0.1]]])
    drafted = draft([[], []], stopped=[True, False])
    assert answers(verdict(bild.BigLittle(), drafted, large)) == [(0, B, False), (0, C, False)]


def test_paper_reads_processed_logits_only():
    processed = [[[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]]
    raw = [[[0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]]]
    large = scores(processed, raw)
    assert answers(verdict(bild.BigLittle(rollback=1.0), draft([[A]]), large)) == [(0, B, False)]
    assert answers(verdict(bild.BigLittle(rollback=1.0), draft([[B]]), large)) == [(1, D, False)]


def test_paper_sampling_draws_at_positions_over_the_threshold():
    row = [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.1, 0.7]]
    large = scores([row] * 4, do_sample=True)
    drafted = draft([[A, B]] * 4)
    # A uniform number u draws A below 0.25, B below 0.5, C below 0.75, D above. -log 0.25 = 1.39.
    uniforms = torch.tensor([[0.1, 0.3, 0.05], [0.1, 0.6, 0.05], [0.9, 0.3, 0.05], [0.3, 0.9, 0.95]])
    policy = bild.BigLittle(rollback=1.0)
    assert answers(verdict(policy, drafted, large, uniforms)) == [
        (2, A, False),
        (1, C, False),
        (0, D, False),
        (0, B, False),
    ]
    lenient = bild.BigLittle(rollback=1.5)
    assert answers(verdict(lenient, drafted, large, uniforms)) == [
        (2, A, False),
        (2, A, False),
        (2, A, False),
        (2, D, False),
    ]


def test_paper_sampling_compares_plain_and_draws_tempered():
    # Plain: -log 0.4 = 0.92. Tempered at 0.1: A has almost nothing, B almost everything.
    row = [[0.4, 0.6, 1e-9, 1e-9], [0.4, 0.6, 1e-9, 1e-9]]
    large = scores([row], do_sample=True, temperature=0.1)
    uniforms = torch.tensor([[0.1, 0.1]])
    assert answers(verdict(bild.BigLittle(rollback=1.0), draft([[A]]), large, uniforms)) == [(1, B, False)]
    assert answers(verdict(bild.BigLittle(rollback=0.9), draft([[A]]), large, uniforms)) == [(0, B, False)]


# Rollback, the authors' rule


def authors(rollback: float) -> bild.BigLittle:
    return bild.BigLittle(rollback=rollback, rule="authors")


def test_authors_a_rollback_lets_the_large_model_go_again():
    large = scores([[[0.1, 0.8, 0.05, 0.05], [0.1, 0.05, 0.8, 0.05], [0.1, 0.1, 0.1, 0.7]]])
    assert answers(verdict(authors(2.0), draft([[B, A]]), large)) == [(1, C, True)]
    assert answers(verdict(authors(2.0), draft([[B, C]]), large)) == [(2, D, False)]


def test_authors_agreement_at_the_first_position_over_the_threshold_ends_the_examination():
    large = scores(OVER_BUT_AGREED)
    assert answers(verdict(authors(0.9), draft([[A, A]]), large)) == [(2, D, False)]
    # Without the first position, the second would have been rolled back.
    assert answers(verdict(authors(1.0), draft([[A, A]]), large)) == [(1, C, True)]


def test_authors_check_raw_logits_and_go_on_with_processed_ones():
    raw = [[[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]]
    processed = [[[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]]
    large = scores(processed, raw)
    assert answers(verdict(authors(1.0), draft([[A]]), large)) == [(0, B, True)]
    assert answers(verdict(authors(1.0), draft([[B]]), large)) == [(1, C, False)]


def test_authors_a_row_without_a_draft_writes_its_processed_choice():
    large = scores([[[0.1, 0.7, 0.1, 0.1], NAN]], [[[0.7, 0.1, 0.1, 0.1], NAN]])
    assert answers(verdict(authors(0.0), draft([[A]], n_drafted=[0]), large)) == [(0, B, False)]


# The policies as objects


def test_what_the_policies_ask_of_the_loop():
    fields = ("uses_small", "uses_large", "max_draft", "large_first", "keeps_scores", "looks_ahead")
    asked = {
        "paper": bild.BigLittle(),
        "tail": bild.BigLittle(verify_eos=True, draft_length=3),
        "authors": bild.BigLittle(rule="authors"),
        "large": bild.LargeOnly(),
        "small": bild.SmallOnly(),
        "speculative": bild.Speculative(draft_length=4),
        "cascade": bild.SpeculativeCascade(alpha=0.1),
        "cascade, large bonus": bild.SpeculativeCascade(alpha=0.1, bonus="large"),
        "token cascade": bild.TokenCascade(alpha=0.0),
        "always deferring": bild.TokenCascade(alpha=-0.1),
        "sequence cascade": bild.SequenceCascade(threshold=-1),
        "diff": bild.OracleDiff(alpha=0.1),
        "mixing": bild.OracleMixing(threshold=0.1),
    }
    assert {name: tuple(getattr(policy, field) for field in fields) for name, policy in asked.items()} == {
        "paper": (True, True, 10, False, False, False),
        "tail": (True, True, 3, False, False, False),
        "authors": (True, True, 10, True, False, False),
        "large": (False, True, 0, False, False, False),
        "small": (True, False, None, False, False, False),
        "speculative": (True, True, 4, False, True, False),
        "cascade": (True, True, 5, False, True, True),
        "cascade, large bonus": (True, True, 5, False, True, False),
        "token cascade": (True, True, 10, False, False, False),
        "always deferring": (False, True, 0, False, False, False),
        "sequence cascade": (True, True, None, False, False, False),
        "diff": (True, True, 1, False, True, False),
        "mixing": (True, True, 1, False, False, False),
    }


@pytest.mark.parametrize(
    ("policy", "settled"),
    [
        (bild.BigLittle(), [True, False]),
        (bild.BigLittle(verify_eos=True), [False, False]),
        (bild.BigLittle(rule="authors"), [True, True]),
        (bild.SmallOnly(), [True, True]),
    ],
    ids=str,
)
def test_drafts_that_stand_because_their_row_ends(policy, settled):
    at_eos, at_limit = torch.tensor([True, False]), torch.tensor([False, True])
    review = policy.review(draft([[A, B], [A, B]], n_drafted=[1, 2]), at_eos, at_limit)
    assert review.settled.tolist() == settled
    assert review.n_accepted.tolist() == [1, 2]
    assert review.skip_draft.tolist() == [False, False]


def test_large_only_writes_its_choice_at_the_only_position():
    large = scores([[[0.1, 0.7, 0.1, 0.1]], [[0.1, 0.1, 0.7, 0.1]]])
    assert answers(bild.LargeOnly().verify(draft([[], []]), large, None)) == [(0, B, False), (0, C, False)]


def test_small_only_never_stops_and_is_never_verified():
    assert bild.SmallOnly().stop_rule is None
    with pytest.raises(AssertionError, match="never verified"):
        bild.SmallOnly().verify(draft([[A]]), scores([[[0.25] * 4] * 2]), None)


@pytest.mark.parametrize(
    "policy", [bild.BigLittle(), bild.LargeOnly(), bild.SmallOnly(), bild.Speculative(), bild.TokenCascade(alpha=0.1)]
)
def test_policies_are_frozen_and_compare_by_value(policy):
    assert policy == dataclasses.replace(policy)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.fallback = 0.1


def test_policy_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        bild.BigLittle(0.5)
