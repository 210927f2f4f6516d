"""Cascades: their targets by hand, what their samples follow, and their limits."""

from __future__ import annotations

import pytest

import bild
from bild.sampling import Sampler
from tests.bild.fakes import Prefix
from tests.bild.laws import (
    LARGE,
    SAMPLERS,
    SMALL,
    law_of_one_model,
    law_of_rounds,
    p_value,
    plain,
    samples_of,
    tempered,
)

LENGTH = 4
ALPHAS = {"chow": 0.5, "diff": 0.0, "opt": 0.3, "token_v1": 0.3, "token_v2": 0.3, "token_v3": 0.6, "bild": 1.2}


def target_of(rule: str, alpha: float, sampler: Sampler):
    """The distribution after a prefix that the rule makes, token by token."""
    small_draws, large_draws = tempered(SMALL, sampler), tempered(LARGE, sampler)

    def target(prefix: Prefix) -> list[float]:
        q_plain, p_plain = plain(SMALL)(prefix), plain(LARGE)(prefix)
        q, p = small_draws(prefix), large_draws(prefix)
        sure, large_sure = max(q_plain), max(p_plain)
        distance = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
        defer = {
            "chow": [sure < 1 - alpha] * len(q),
            "diff": [sure < large_sure - alpha] * len(q),
            "opt": [sure < large_sure - alpha * distance] * len(q),
            "bild": [p_plain[q_plain.index(sure)] < 2.718281828459045**-alpha] * len(q),
            "token_v1": [prob < large_sure - alpha for prob in q_plain],
            "token_v2": [prob < large_sure - alpha for prob in p_plain],
            "token_v3": [prob < large_sure * (1 - alpha) for prob in p_plain],
        }[rule]
        handed_over = sum(prob for prob, defers in zip(q, defer, strict=True) if defers)
        return [
            (0.0 if defers else mine) + theirs * handed_over for mine, theirs, defers in zip(q, p, defer, strict=True)
        ]

    return target


@pytest.mark.parametrize(("rule", "sampler"), [(rule, SAMPLERS[n % 3]) for n, rule in enumerate(ALPHAS)], ids=str)
def test_samples_follow_the_target(rule, sampler):
    policy = bild.SpeculativeCascade(rule=rule, alpha=ALPHAS[rule], draft_length=2)
    law = law_of_one_model(target_of(rule, ALPHAS[rule], sampler), LENGTH)
    assert p_value(samples_of(policy, sampler, length=LENGTH), law) > 1e-3


@pytest.mark.parametrize("rule", ["opt", "token_v3"])
def test_with_the_large_models_bonus_it_writes_every_third_token(rule):
    policy = bild.SpeculativeCascade(rule=rule, alpha=ALPHAS[rule], draft_length=2, bonus="large")
    target, small, large = (
        target_of(rule, ALPHAS[rule], SAMPLERS[0]),
        tempered(SMALL, SAMPLERS[0]),
        tempered(LARGE, SAMPLERS[0]),
    )

    def accepted(prefix: Prefix) -> list[float]:
        return [min(pair) for pair in zip(target(prefix), small(prefix), strict=True)]

    def replaced(prefix: Prefix) -> list[float]:
        return [max(0.0, wanted - drawn) for wanted, drawn in zip(target(prefix), small(prefix), strict=True)]

    samples = samples_of(policy, SAMPLERS[0], length=LENGTH)
    assert p_value(samples, law_of_rounds(accepted, replaced, large, 2, LENGTH)) > 1e-3
    assert p_value(samples, law_of_one_model(target, LENGTH)) < 1e-3
