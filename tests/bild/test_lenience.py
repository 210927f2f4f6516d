"""Lenient speculative decoding: what it accepts, and the target that this makes."""

from __future__ import annotations

import math

import pytest
import torch

import bild
from bild.policies.speculative import normalizer
from tests.bild.fakes import counting, run
from tests.bild.steps import normalizing


@pytest.mark.parametrize(("lenience", "accepted"), [(0.0, 0), (0.49, 0), (0.51, 3), (0.99, 3)])
def test_greedy_lenience_asks_for_a_share_of_the_largest_plain_probability(lenience, accepted):
    """The large model gives 0.6 to its choice and 0.3 to the drafted token, whatever the temperature of sampling."""
    large, small = counting(10, sure=0.6), counting(10, sure=0.9, offset=2)

    def generous(prefix):
        probs = torch.full((10,), 0.1 / 8, dtype=torch.float64)
        probs[torch.tensor(large(prefix)).argmax()] = 0.6
        probs[torch.tensor(small(prefix)).argmax()] = 0.3
        return probs.log().tolist()

    policy = bild.Speculative(draft_length=3, lenience=lenience)
    _, stats, _, _ = run(generous, small, policy, vocab_size=10, max_new_tokens=4, eos=())
    assert stats[0].accepted == (3 if accepted else 0)
    assert stats[0].large_steps == (1 if accepted else 4)


def random_probs(seed: int, rows: int, vocab_size: int) -> torch.Tensor:
    """With zeros, as top-k makes them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab_size, generator=generator, dtype=torch.float64) * 2
    return torch.softmax(logits.masked_fill(torch.rand(logits.shape, generator=generator) < 0.3, -math.inf), -1)


@pytest.mark.parametrize("lenience", [0.0, 0.2, 0.5, 0.9])
def test_the_normalized_lenient_target_sums_to_one(lenience):
    small, large = random_probs(1, 300, 12), random_probs(2, 300, 12)
    beta = normalizer(small, large, lenience)
    assert (beta >= 1 - 1e-9).all()
    target = torch.maximum(torch.minimum(small, large / (1 - lenience)), large / beta)
    # Where the acceptance leaves nothing over, no beta is needed.
    remaining = (small - large / (1 - lenience)).clamp(min=0).sum(-1)
    assert target.sum(-1)[remaining > 0].numpy() == pytest.approx(1.0)
    expected = [
        normalizing(q, p, lenience)
        for q, p, left in zip(small.tolist(), large.tolist(), remaining, strict=True)
        if left > 0
    ]
    assert len(expected) > 200
    assert beta[remaining > 0, 0].numpy() == pytest.approx(expected)


def test_without_lenience_beta_is_one():
    small, large = random_probs(3, 50, 12), random_probs(4, 50, 12)
    assert normalizer(small, large, 0.0).numpy() == pytest.approx(1.0)
