"""Sampled whole sequences against exact enumeration: a chi-square test on a small vocabulary, fixed seeds."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest
import torch

import bild
from bild.sampling import Sampler
from tests.bild.fakes import EOS, START, Prefix
from tests.bild.laws import (
    LARGE,
    LENGTH,
    ROWS,
    SAMPLERS,
    SMALL,
    VOCAB,
    Law,
    has_ended,
    law_of_one_model,
    p_value,
    plain,
    samples_of,
    tempered,
)
from tests.bild.models import sources, tiny_t5
from tests.bild.oracle import t5_scorer


def law_of_big_little(sampler: Sampler, fallback: float, rollback: float, draft_length: int) -> Law:
    """Every course that Algorithm 1 can take, with its probability; a drafted EOS is not verified."""
    small_plain, large_plain = plain(SMALL), plain(LARGE)
    small_draws, large_draws = tempered(SMALL, sampler), tempered(LARGE, sampler)

    def drafts(prefix: Prefix, begin: int):
        """(drafted prefix, probability) of every draft."""
        drafted = len(prefix) - begin
        full = drafted == draft_length or len(prefix) == 1 + LENGTH
        if full or (drafted > 0 and prefix[-1] == EOS) or max(small_plain(prefix)) < fallback:
            yield prefix, 1.0
            return
        for token, prob in enumerate(small_draws(prefix)):
            if prob > 0:
                for whole, weight in drafts((*prefix, token), begin):
                    yield whole, prob * weight

    def verified(prefix: Prefix, place: int):
        """(prefix after the large model's pass, probability)."""
        if place == len(prefix):
            if len(prefix) == 1 + LENGTH:
                yield prefix, 1.0
                return
            for token, prob in enumerate(large_draws(prefix)):
                yield (*prefix, token), prob
            return
        before, drafted = prefix[:place], prefix[place]
        if large_plain(before)[drafted] >= torch.tensor(-rollback, dtype=torch.float64).exp().item():
            yield from verified(prefix, place + 1)
            return
        for token, prob in enumerate(large_draws(before)):
            if token == drafted:
                for whole, weight in verified(prefix, place + 1):
                    yield whole, prob * weight
            else:
                yield (*before, token), prob

    @lru_cache(None)
    def rest(prefix: Prefix) -> tuple[tuple[Prefix, float], ...]:
        if has_ended(prefix):
            return ((prefix[1:], 1.0),)
        law: Counter[Prefix] = Counter()
        for drafted, weight in drafts(prefix, len(prefix)):
            unverified = len(drafted) > len(prefix) and drafted[-1] == EOS
            for after, share in [(drafted, 1.0)] if unverified else verified(drafted, len(prefix)):
                if weight * share > 0:
                    for whole, final in rest(after):
                        law[whole] += weight * share * final
        return tuple(law.items())

    return dict(rest((START,)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_rollback_zero_samples_from_the_large_model(sampler):
    policy = bild.BigLittle(fallback=0.3, rollback=0.0, draft_length=2, verify_eos=True)
    law = law_of_one_model(tempered(LARGE, sampler))
    samples = samples_of(policy, sampler)
    assert p_value(samples, law) > 1e-3
    # The test can tell: the small model's law is refused.
    other = law_of_one_model(tempered(SMALL, sampler))
    assert set(samples) - set(other) or p_value(samples, other) < 1e-9


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(("fallback", "rollback", "draft_length"), [(0.3, 1.2, 2), (0.0, 1.6, 3)])
def test_big_little_samples_as_algorithm_1_says(sampler, fallback, rollback, draft_length):
    policy = bild.BigLittle(fallback=fallback, rollback=rollback, draft_length=draft_length)
    law = law_of_big_little(sampler, fallback, rollback, draft_length)
    assert p_value(samples_of(policy, sampler), law) > 1e-3


@pytest.mark.parametrize("name", ["large", "small"])
def test_one_model_alone_samples_from_itself(name):
    policy, model = {"large": (bild.LargeOnly(), LARGE), "small": (bild.SmallOnly(), SMALL)}[name]
    law = law_of_one_model(tempered(model, SAMPLERS[1]))
    assert p_value(samples_of(policy, SAMPLERS[1]), law) > 1e-3


def test_a_t5_pair_samples_from_the_large_model():
    large = tiny_t5(31, vocab=VOCAB + 1)
    small = tiny_t5(32, layers=1, vocab=VOCAB + 1, like=large)
    with torch.no_grad():
        for model in (large, small):
            model.lm_head.weight.mul_(0.3)
    ids, _ = sources(4, [4], vocab=VOCAB + 1)
    sampler = Sampler(do_sample=True, temperature=1.2)
    score = t5_scorer(large, ids, VOCAB + 1)
    law = law_of_one_model(lambda prefix: sampler.distribution(score(list(prefix))[-1]).tolist())
    out = bild.generate(
        large, small, ids.expand(ROWS, -1), policy=bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.3),
        max_new_tokens=LENGTH, do_sample=True, temperature=1.2, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    samples = [tuple(row[1 : 1 + count.tokens]) for row, count in zip(out.sequences.tolist(), out.stats, strict=True)]
    assert sum(count.rolled_back for count in out.stats) > 100
    assert p_value(samples, law) > 1e-3
