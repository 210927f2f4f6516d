"""Which examples make up which update."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.batches import MicroBatches, Updates

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=120)
DEFAULTS = {"batch_size": 8, "tokens_per_batch": None, "group_by_length": False, "parts": 1, "seed": 0}


def updates(lengths: list[tuple[int, int]], **changes) -> Updates:
    return Updates(lengths, **DEFAULTS | changes)


@given(lengths=LENGTHS, batch_size=st.integers(1, 16), grouped=st.booleans(), epoch=st.integers(0, 5))
def test_an_epoch_has_every_example_at_most_once(lengths, batch_size, grouped, epoch) -> None:
    plan = updates(lengths, batch_size=batch_size, group_by_length=grouped)
    batches = plan.epoch(epoch)
    assert len(batches) == len(plan) == len(lengths) // batch_size
    assert all(len(batch) == batch_size for batch in batches)
    examples = [example for batch in batches for example in batch]
    assert len(set(examples)) == len(examples)
    assert set(examples) <= set(range(len(lengths)))


@given(lengths=LENGTHS, tokens=st.integers(80, 400), parts=st.integers(1, 4))
def test_an_update_keeps_to_its_tokens(lengths, tokens, parts) -> None:
    plan = updates(lengths, tokens_per_batch=tokens, parts=parts)
    batches = plan.epoch(0)
    assert len(batches) == len(plan)
    for batch in batches:
        padded = np.max([lengths[example] for example in batch], axis=0).sum() * len(batch)
        assert padded <= tokens or len(batch) == parts
        assert len(batch) >= parts
    left_out = set(range(len(lengths))) - {example for batch in batches for example in batch}
    assert len(left_out) < parts


@given(lengths=LENGTHS, accumulation=st.integers(1, 3), processes=st.integers(1, 3), tokens=st.none() | st.just(300))
def test_the_pieces_of_an_update_are_the_update(lengths, accumulation, processes, tokens) -> None:
    parts = accumulation * processes
    plan = updates(lengths, batch_size=9, tokens_per_batch=tokens, parts=parts)
    shares = [MicroBatches(plan, accumulation=accumulation, rank=r, processes=processes) for r in range(processes)]
    pieces = [list(share) for share in shares]
    for share, mine in zip(shares, pieces, strict=True):
        assert len(mine) == len(share) == len(plan) * accumulation
        assert all(len(piece) > 0 for piece in mine)
    for step, update in enumerate(plan.epoch(0)):
        mine = [piece for rank in pieces for piece in rank[step * accumulation : (step + 1) * accumulation]]
        assert sorted(example for piece in mine for example in piece) == sorted(update)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [(row % 7 + 1, row % 5 + 1) for row in range(64)]
    for changes in ({}, {"group_by_length": True}, {"tokens_per_batch": 60}):
        one = updates(lengths, **changes)
        one.epoch(3)
        assert one.epoch(1) == updates(lengths, **changes).epoch(1)
        assert one.epoch(1) != one.epoch(2)
        assert one.epoch(1) != updates(lengths, **changes, seed=1).epoch(1)


@pytest.mark.parametrize("changes", [{"group_by_length": True}, {"tokens_per_batch": 240}])
def test_grouping_saves_padding(changes) -> None:
    chance = np.random.default_rng(0)
    lengths = [(int(a), int(a) + 2) for a in chance.integers(2, 40, 800)]

    def padding(plan: Updates) -> float:
        sums = [(np.max(rows := [lengths[e] for e in batch], axis=0).sum() * len(batch), np.sum(rows))
                for batch in plan.epoch(0)]  # fmt: skip
        return 1 - sum(used for _, used in sums) / sum(padded for padded, _ in sums)

    assert padding(updates(lengths)) > 0.3
    assert padding(updates(lengths, **changes)) < 0.1


def test_batches_of_like_lengths_come_in_random_order() -> None:
    lengths = [(row, row) for row in range(1, 401)]
    longest = [max(batch) for batch in updates(lengths, group_by_length=True).epoch(0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
