"""Speculative decoding: the large model's text whatever drafts, and what lenience makes of it."""

from __future__ import annotations

import pytest

import bild
from bild.sampling import Sampler
from tests.bild.laws import (
    LARGE,
    SAMPLERS,
    SMALL,
    Law,
    law_of_one_model,
    law_of_rounds,
    p_value,
    samples_of,
    tempered,
)

PLAIN = Sampler(do_sample=True)
LENGTH = 4


# Whole sequences


@pytest.mark.parametrize(("sampler", "draft_length"), list(zip(SAMPLERS, (1, 2, 5), strict=True)), ids=str)
def test_samples_follow_the_large_model(sampler, draft_length):
    samples = samples_of(bild.Speculative(draft_length=draft_length), sampler, length=LENGTH)
    assert p_value(samples, law_of_one_model(tempered(LARGE, sampler), LENGTH)) > 1e-3


def lenient_law(sampler: Sampler, lenience: float, beta: float | str | None, draft_length: int) -> Law:
    small, large = tempered(SMALL, sampler), tempered(LARGE, sampler)

    def accepted(prefix):
        return [min(q, p / (1 - lenience)) for q, p in zip(small(prefix), large(prefix), strict=True)]

    def replaced(prefix):
        missing = 1 - sum(accepted(prefix))

        def left(beta: float) -> list[float]:
            return [max(0.0, p / beta - q) for q, p in zip(small(prefix), large(prefix), strict=True)]

        if beta == "normalized":
            return left(bisected(lambda candidate: sum(left(candidate)) - missing))
        weights = left(1.0 if beta is None else beta)
        return [missing * weight / sum(weights) if missing > 0 else 0.0 for weight in weights]

    return law_of_rounds(accepted, replaced, large, draft_length, LENGTH)


def bisected(falling) -> float:
    """Where a falling function of beta >= 1 crosses zero."""
    low, high = 1.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


@pytest.mark.parametrize(("lenience", "beta"), [(0.3, None), (0.6, "normalized"), (0.6, 0.7)])
def test_lenient_samples_follow_their_target(lenience, beta):
    samples = samples_of(bild.Speculative(lenience=lenience, beta=beta, draft_length=2), PLAIN, length=LENGTH)
    assert p_value(samples, lenient_law(PLAIN, lenience, beta, 2)) > 1e-3
    # The test can tell: this is not the large model's law.
    assert p_value(samples, lenient_law(PLAIN, 0.0, None, 2)) < 1e-9
