"""Policies of every kind: the same text and counts on both engines, in a batch and alone, with an early exit, and from
decoders alone; greedy and sampled."""

from __future__ import annotations

import pytest

import bild
from tests.bild.fakes import told
from tests.bild.families import family_pair, inputs_of, one_row
from tests.bild.models import KINDS, pair, sources, streams, tiny_t5

LENGTHS = [6, 1, 4]
LARGE = tiny_t5(3, layers=3)
PAIRS = {"pair": (3, pair(3)), "early exit": (1, (LARGE, bild.EarlyExit(2)))}
"""Which sources, and the models."""


@pytest.mark.parametrize("do_sample", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("models", PAIRS)
@pytest.mark.parametrize("policy", KINDS, ids=str)
def test_both_engines_and_every_row_alone_write_the_same(policy, models, do_sample):
    seed, both = PAIRS[models]
    ids, mask = sources(seed, LENGTHS)

    def written(engine, rows, length):
        return bild.generate(
            *both, ids[rows, :length], attention_mask=mask[rows, :length], policy=policy, max_new_tokens=12,
            engine=engine, do_sample=do_sample, top_k=9, generator=streams(rows),
        )  # fmt: skip

    together, twin = (written(engine, [0, 1, 2], max(LENGTHS)) for engine in ("static", "hf"))
    assert together.sequences.equal(twin.sequences)
    assert together.stats == twin.stats
    for row, length in enumerate(LENGTHS):
        alone = written("static", [row], length)
        assert told(together.trace[row]) == told(alone.trace[0])
        assert together.stats[row] == alone.stats[0]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("policy", KINDS, ids=str)
def test_decoders_alone_write_in_a_batch_what_they_write_row_by_row(policy, name):
    large, small = family_pair(name, 1)
    inputs = inputs_of(name, 1, [7, 2, 5])
    for do_sample in (False, True):
        common = {"policy": policy, "max_new_tokens": 8, "do_sample": do_sample, "temperature": 1.1, "top_p": 0.9}
        batch = bild.generate(large, small, **inputs, generator=streams(range(3)), **common)
        for row in (0, 1):
            one = bild.generate(large, small, **one_row(inputs, row), generator=streams([row]), **common)
            assert told(batch.trace[row]) == told(one.trace[0])
            assert batch.stats[row] == one.stats[0]
