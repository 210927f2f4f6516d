"""Probabilities of whole sequences by exact enumeration, and a chi-square test of samples against them.

Written from the descriptions of the algorithms, in plain Python; shares no line with the decoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

import pytest
import torch
from scipy.stats import chi2, ncx2

from bild.policies.base import Policy
from bild.sampling import Sampler
from tests.bild.fakes import EOS, START, Model, Prefix, hashed, run
from tests.bild.steps import Step

VOCAB = 5
LENGTH = 3
ROWS = 4000
Law = dict[Prefix, float]
"""Probability of each whole sequence, the start left out."""
Probs = Callable[[Prefix], list[float]]
"""Probabilities of the token after a prefix, the start included."""

LARGE = hashed(11, VOCAB, sharpness=0.8)
SMALL = hashed(12, VOCAB, sharpness=0.8, twin=11)
SAMPLERS = [
    Sampler(do_sample=True),
    Sampler(do_sample=True, temperature=0.6, top_k=3),
    Sampler(do_sample=True, temperature=1.5, top_p=0.8),
]


def plain(model: Model) -> Probs:
    return lambda prefix: torch.softmax(torch.tensor(model(prefix), dtype=torch.float64), -1).tolist()


def tempered(model: Model, sampler: Sampler) -> Probs:
    return lambda prefix: sampler.distribution(torch.tensor(model(prefix), dtype=torch.float64)).tolist()


def has_ended(prefix: Prefix, length: int = LENGTH) -> bool:
    return len(prefix) > 1 and (prefix[-1] == EOS or len(prefix) == 1 + length)


def law_of_one_model(probs: Probs, length: int = LENGTH) -> Law:
    law: Law = {}

    def walk(prefix: Prefix, weight: float) -> None:
        if has_ended(prefix, length):
            law[prefix[1:]] = weight
            return
        for token, prob in enumerate(probs(prefix)):
            if prob > 0:
                walk((*prefix, token), weight * prob)

    walk((START,), 1.0)
    return law


def law_of_rounds(step: Callable[[Prefix], Step], draft_length: int, length: int) -> Law:
    """What draft and verification write: after a replacement, or the bonus behind a full draft, a new round begins."""

    @lru_cache(None)
    def rest(prefix: Prefix, drafted: int) -> tuple[tuple[Prefix, float], ...]:
        if has_ended(prefix, length):
            return ((prefix[1:], 1.0),)
        here = step(prefix)
        full = drafted == draft_length
        courses = [(here.bonus, 0)] if full else [(here.accepted, drafted + 1), (here.replaced, 0)]
        law: Counter[Prefix] = Counter()
        for masses, place in courses:
            for token, mass in enumerate(masses):
                if mass > 0:
                    for whole, final in rest((*prefix, token), place):
                        law[whole] += mass * final
        return tuple(law.items())

    return dict(rest((START,), 0))


def cells(law: Law, counts: Mapping[Prefix, float], rows: int) -> list[tuple[float, float]]:
    """(expected, counted) of the law's sequences; those that are expected fewer than five times share one cell."""
    parts: list[tuple[float, float]] = []
    rare = (0.0, 0.0)
    for sequence, prob in law.items():
        expected, seen = prob * rows, counts.get(sequence, 0)
        if expected < 5:
            rare = (rare[0] + expected, rare[1] + seen)
        else:
            parts.append((expected, seen))
    if rare[0] > 1:
        parts.append(rare)
    assert len(parts) > 8
    return parts


def statistic(parts: list[tuple[float, float]]) -> float:
    """Pearson's."""
    return sum((seen - expected) ** 2 / expected for expected, seen in parts)


def p_value(samples: list[Prefix], law: Law) -> float:
    """Of a chi-square test."""
    assert sum(law.values()) == pytest.approx(1.0)
    counts = Counter(samples)
    assert set(counts) <= set(law), "an impossible sequence was written"
    parts = cells(law, counts, len(samples))
    return float(chi2.sf(statistic(parts), len(parts) - 1))


def power(law: Law, wrong: Law) -> tuple[float, float]:
    """Of that test of ``ROWS`` sequences which follow a wrong law: its noncentrality, and how often it gives less than
    1e-3 (asymptotically)."""
    assert sum(wrong.values()) == pytest.approx(1.0)
    parts = cells(law, {sequence: prob * ROWS for sequence, prob in wrong.items()}, ROWS)
    noncentrality, freedom = statistic(parts), len(parts) - 1
    return noncentrality, float(ncx2.sf(chi2.isf(1e-3, freedom), freedom, noncentrality))


def samples_of(
    policy: Policy,
    sampler: Sampler,
    *,
    length: int = LENGTH,
    large: Model = LARGE,
    small: Model = SMALL,
    vocab_size: int = VOCAB,
) -> list[Prefix]:
    """What ``ROWS`` rows of a hand-made pair write, each with its own stream."""
    generators = [torch.Generator().manual_seed(1_000 + row) for row in range(ROWS)]
    written, _, _, _ = run(
        [large] * ROWS, [small] * ROWS, policy, vocab_size=vocab_size, max_new_tokens=length, sampler=sampler,
        generators=generators,
    )  # fmt: skip
    return [tuple(row) for row in written]
