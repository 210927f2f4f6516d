"""What calls itself lossless writes the large model's text, and what does not, does not."""

from __future__ import annotations

import math

import pytest
import torch

import bild
from bild.policies.base import Policy
from bild.sampling import Sampler
from tests.bild.fakes import hashed, run

ROWS = 24
LARGES = [hashed(seed, 7) for seed in range(ROWS)]
SMALLS = [hashed(seed + 50, 7, twin=seed) for seed in range(ROWS)]
LOSSLESS = [
    bild.LargeOnly(),
    bild.BigLittle(fallback=0.3, rollback=0.0, verify_eos=True),
    bild.BigLittle(fallback=1.1, rollback=math.inf),
    bild.BigLittle(fallback=1.1, rule="authors"),
    bild.Speculative(draft_length=3),
    bild.Speculative(beta=1.0),
    bild.Speculative(beta="normalized"),
    bild.TokenCascade(alpha=-0.1),
]
LOSSY = [
    bild.SmallOnly(),
    bild.BigLittle(fallback=0.3, rollback=3.0, verify_eos=True),
    bild.BigLittle(fallback=0.3, rollback=0.0),
    bild.BigLittle(fallback=0.3, rollback=0.0, rule="authors"),
    bild.Speculative(lenience=0.9),
    bild.SpeculativeCascade(rule="chow", alpha=0.5),
    bild.TokenCascade(alpha=0.5),
    bild.SequenceCascade(threshold=-1.0),
    bild.OracleDiff(alpha=0.1),
    bild.OracleMixing(threshold=0.1),
]


def texts(policy: Policy, sampler: Sampler | None = None) -> list[list[int]]:
    generators = None if sampler is None else [torch.Generator().manual_seed(row) for row in range(ROWS)]
    return run(LARGES, SMALLS, policy, vocab_size=7, max_new_tokens=9, sampler=sampler, generators=generators)[0]


@pytest.mark.parametrize("policy", LOSSLESS, ids=str)
def test_it_writes_what_the_large_model_writes(policy):
    assert policy.lossless
    assert texts(policy) == texts(bild.LargeOnly())


@pytest.mark.parametrize("policy", LOSSY, ids=str)
def test_the_others_do_not(policy):
    assert not policy.lossless
    assert texts(policy) != texts(bild.LargeOnly())


@pytest.mark.parametrize(
    "policy", [bild.Calm(), bild.Calm(threshold=0.0), bild.Speculative(beta=2.0), bild.Speculative(lenience=0.1)]
)
def test_lossy_ones_that_these_models_cannot_show(policy):
    """Tokens that leave early are not the whole model's, and a beta of its own moves the law of samples alone."""
    assert not policy.lossless
