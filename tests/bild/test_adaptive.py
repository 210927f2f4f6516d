"""Draft lengths that follow what stood of the last draft: per row, without a trace in what lossless policies write."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

import bild
from bild.policies.adaptive import adapted
from bild.sampling import Sampler
from tests.bild.fakes import counting, hashed, run
from tests.bild.laws import LARGE, SMALL, law_of_one_model, p_value, plain, samples_of, tempered
from tests.bild.models import pair, sources

SAMPLED = Sampler(do_sample=True, temperature=1.3)
EXACT = [
    bild.Speculative(draft_length=4, adaptive=True),
    bild.BigLittle(fallback=0.3, rollback=0, verify_eos=True, draft_length=4, adaptive=True),
]
ALL = [
    *EXACT,
    bild.BigLittle(fallback=0.4, rollback=1.0, draft_length=5, adaptive=True),
    bild.SpeculativeCascade(rule="opt", alpha=0.3, draft_length=4, adaptive=True),
]


@pytest.mark.parametrize(
    ("length", "n_drafted", "n_accepted", "following"),
    [
        (4, 4, 4, 6),
        (9, 9, 9, 10),  # never beyond the longest
        (10, 10, 10, 10),
        (4, 3, 3, 4),  # something else ended it
        (4, 0, 0, 4),  # nothing was drafted
        (10, 10, 0, 5),
        (10, 10, 9, 10),
        (10, 10, 7, 9),
        (10, 6, 2, 6),
        (2, 2, 0, 1),
        (1, 1, 0, 1),  # never less than one
    ],
)
def test_the_next_length(length, n_drafted, n_accepted, following):
    assert adapted(length, n_drafted, n_accepted, 10) == following


@pytest.mark.parametrize("longest", range(4))
def test_no_length_is_above_the_longest(longest):
    rounds = [(drafted, stood) for drafted in range(longest + 1) for stood in range(drafted + 1)]
    assert all(adapted(longest, *counts, longest) <= longest for counts in rounds)


def drafts(trace) -> list[tuple[int, int]]:
    """Of each round, how many tokens were drafted and how many of them stood."""
    drafted = Counter(entry.round for entry in trace if entry.model == "small")
    stood = Counter(entry.round for entry in trace if entry.model == "small" and entry.reason == "draft")
    return [(drafted[turn], stood[turn]) for turn in sorted({entry.round for entry in trace})]


def wrong_from_4_to_19(prefix):
    return counting(200, sure=0.9, offset=2 if 4 <= len(prefix) < 20 else 1)(prefix)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_row_drafts_less_where_drafts_are_rejected_and_more_where_they_stand(adaptive):
    policy = bild.Speculative(draft_length=8, adaptive=adaptive)
    _, _, traces, _ = run(
        counting(200, sure=0.9), wrong_from_4_to_19, policy, vocab_size=200, max_new_tokens=60, eos=()
    )  # fmt: skip
    lengths = [drafted for drafted, _ in drafts(traces[0])]
    if not adaptive:
        assert set(lengths[:-1]) == {8}
        return
    assert lengths[0] == 8
    assert min(lengths) == 1
    assert lengths[-2] == 8
    for (drafted, stood), (following, _) in pairwise(drafts(traces[0])[:-1]):
        assert following == adapted(drafted, drafted, stood, 8)


ROWS = 24
LARGES = [hashed(seed, 7) for seed in range(ROWS)]
SMALLS = [hashed(seed + 50, 7, twin=seed) for seed in range(ROWS)]


def written(policy, sampler=None, rows=range(ROWS)):
    generators = None if sampler is None else [torch.Generator().manual_seed(row) for row in rows]
    larges, smalls = [LARGES[row] for row in rows], [SMALLS[row] for row in rows]
    return run(larges, smalls, policy, vocab_size=7, max_new_tokens=14, sampler=sampler, generators=generators)[:3]


@pytest.mark.parametrize("policy", EXACT, ids=str)
def test_lossless_policies_stay_lossless(policy):
    assert policy.lossless
    assert written(policy)[0] == written(bild.LargeOnly())[0]
    lengths = {drafted for trace in written(policy)[2] for drafted, _ in drafts(trace)}
    assert lengths >= {1, 2, 3, 4}


@pytest.mark.parametrize("policy", EXACT, ids=str)
def test_samples_follow_the_large_model(policy):
    assert p_value(samples_of(policy, SAMPLED), law_of_one_model(tempered(LARGE, SAMPLED))) > 1e-3


@pytest.mark.parametrize("rule", ["chow", "diff", "token_v1"])
def test_a_cascade_looks_ahead_behind_shorter_drafts_too(rule):
    """Its greedy text is its target's, however long the drafts are."""
    texts = [
        written(bild.SpeculativeCascade(rule=rule, alpha=0.4, draft_length=length, adaptive=length > 1))[0]
        for length in (1, 2, 5)
    ]
    assert texts[0] == texts[1] == texts[2]


def test_samples_of_a_cascade_follow_its_target_behind_shorter_drafts_too():
    """Four tokens: a first draft of three, whose rejection makes the next one shorter, and a look behind that one."""
    alpha = 0.65
    policy = bild.SpeculativeCascade(rule="chow", alpha=alpha, draft_length=2, adaptive=True)
    sampler = Sampler(do_sample=True)

    def target(prefix):
        small = plain(SMALL)(prefix)
        return plain(LARGE)(prefix) if max(small) < 1 - alpha else small

    law = law_of_one_model(target, 4)
    assert p_value(samples_of(policy, sampler, length=4), law) > 1e-3


@pytest.mark.parametrize("sampler", [None, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("policy", ALL, ids=str)
def test_a_batch_is_its_rows(policy, sampler):
    together = written(policy, sampler)
    alone = [written(policy, sampler, [row]) for row in range(ROWS)]
    for part in range(3):
        assert together[part] == [one[part][0] for one in alone]


@pytest.mark.parametrize("sampler", [None, SAMPLED], ids=["greedy", "sampled"])
def test_what_never_drafts_does_not_begin_to(sampler):
    fixed, adaptive = (bild.BigLittle(fallback=1.1, adaptive=flag) for flag in (False, True))
    assert written(adaptive, sampler)[:2] == written(fixed, sampler)[:2]
    assert all(count.small_steps == 0 for count in written(adaptive, sampler)[1])


def test_a_row_that_takes_the_next_source_begins_with_the_whole_length():
    large, small = pair(3)
    ids, _ = sources(3, [5] * 6)
    policy = bild.Speculative(draft_length=4, adaptive=True)
    many = bild.generate_many(large, small, ids, policy=policy, batch_size=2, max_new_tokens=9)
    for index, out in many:
        alone = bild.generate(large, small, ids[index : index + 1], policy=policy, max_new_tokens=9)
        assert out.sequences.equal(alone.sequences)
        assert out.stats == alone.stats


def test_the_authors_loop_has_its_own_drafts():
    with pytest.raises(ValueError, match=r"rule='authors' drafts as its authors' loop does"):
        bild.BigLittle(rule="authors", adaptive=True)
    with pytest.raises(ValueError, match=r"adaptive='yes' must be true or false"):
        bild.Speculative(adaptive="yes")
