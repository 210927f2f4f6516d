"""The formulas against the paper's own numbers, a simulation, and every course that decoding can take."""

from __future__ import annotations

import itertools
import random

import pytest

from pipelines.analysis import leviathan


# Table 1 of the paper: c = 0 for speed, and free arithmetic of the small model.
@pytest.mark.parametrize(
    ("alpha", "g", "operations", "speed"),
    [
        (0.6, 2, 1.53, 1.96),
        (0.7, 3, 1.58, 2.53),
        (0.8, 2, 1.23, 2.44),
        (0.8, 5, 1.63, 3.69),
        (0.9, 2, 1.11, 2.71),
        (0.9, 10, 1.60, 6.86),
    ],
)
def test_the_paper_s_table(alpha, g, operations, speed):
    assert leviathan.tokens_per_large_step(alpha, g) == pytest.approx(speed, abs=0.005)
    assert leviathan.speedup(alpha, g, 0) == pytest.approx(speed, abs=0.005)
    assert leviathan.operations(alpha, g, 0) == pytest.approx(operations, abs=0.005)


def test_costs_of_drafting():
    # (1 - 0.5^3) / (0.5 (2 x 0.25 + 1)) = 0.875 / 0.75
    assert leviathan.speedup(0.5, 2, 0.25) == pytest.approx(0.875 / 0.75)
    # 0.5 (2 x 0.25 + 3) / 0.875
    assert leviathan.operations(0.5, 2, 0.25) == pytest.approx(2)


def test_drafts_that_always_stand():
    assert leviathan.tokens_per_large_step(1, 4) == 5
    assert leviathan.speedup(1, 4, 0.25) == pytest.approx(2.5)


def test_a_draft_pays_where_acceptance_is_above_its_cost():
    assert leviathan.speedup(0.31, 1, 0.3) > 1 > leviathan.speedup(0.29, 1, 0.3)


def test_the_best_draft_length():
    speedups = {g: leviathan.speedup(0.8, g, 0.1) for g in range(1, 11)}
    best = leviathan.best_draft_length(0.8, 0.1, 10)
    assert speedups[best] == max(speedups.values())
    assert 1 < best < 10
    assert leviathan.best_draft_length(0.8, 0.1, best - 1) == best - 1
    assert leviathan.best_draft_length(0.1, 0.9, 10) == 1


@pytest.mark.parametrize(("alpha", "g"), [(0.5, 1), (0.8, 4), (0.95, 7)])
def test_the_formula_is_what_a_simulation_gives(alpha, g):
    generator, tokens, rounds = random.Random(0), 0, 20_000
    for _ in range(rounds):
        accepted = next((n for n in range(g) if generator.random() >= alpha), g)
        tokens += accepted + 1
    assert tokens / rounds == pytest.approx(leviathan.tokens_per_large_step(alpha, g), rel=0.02)


@pytest.mark.parametrize(("alpha", "g"), [(0.5, 1), (0.8, 4), (0.95, 7)])
def test_a_long_text_of_even_acceptance_is_walked_as_the_formula_says(alpha, g):
    steps = leviathan.walk([alpha] * 2000, g, limit=3000)
    assert 2000 / steps.n_large == pytest.approx(leviathan.tokens_per_large_step(alpha, g), rel=0.01)
    assert steps.small / steps.n_large == pytest.approx(g, rel=0.01)
    assert set(steps.large) <= set(range(1, g + 2))


def decoded(accepts: list[bool], g: int, limit: int) -> tuple[int, list[int]]:
    """Small steps and widths of the large steps, counted by doing it."""
    place, small, widths = 0, 0, []
    while place < len(accepts):
        drafted = stood = 0
        while drafted < min(g, limit - place):
            right = stood == drafted and accepts[place + drafted]
            drafted, stood = drafted + 1, stood + right
            if right and place + drafted == len(accepts):
                break
        small += drafted
        widths.append(drafted + 1)
        place += stood + 1
    return small, widths


@pytest.mark.parametrize("g", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [5, 7])
def test_a_walk_is_the_mean_over_every_course(g, limit):
    kept = [0.9, 0.25, 0.6, 1.0, 0.4]
    small = large = 0.0
    by_width: dict[int, float] = {}
    for accepts in itertools.product([True, False], repeat=5):
        chance = 1.0
        for accepted, probability in zip(accepts, kept, strict=True):
            chance *= probability if accepted else 1 - probability
        one_small, widths = decoded(list(accepts), g, limit)
        small, large = small + chance * one_small, large + chance * len(widths)
        for width in widths:
            by_width[width] = by_width.get(width, 0.0) + chance
    steps = leviathan.walk(kept, g, limit)
    assert steps.small == pytest.approx(small)
    assert steps.n_large == pytest.approx(large)
    assert {width: steps.large.get(width, 0.0) for width in by_width} == pytest.approx(by_width)


def test_steps_of_several_texts_and_their_cost():
    steps = leviathan.add([leviathan.StepCounts(2, {1: 1, 3: 2}), leviathan.StepCounts(1, {3: 1, 4: 0.5})])
    assert steps == leviathan.StepCounts(3, {1: 1, 3: 3, 4: 0.5})
    assert steps.n_large == 4.5
    assert steps.milliseconds(0.5, {1: 10, 3: 12, 4: 14}) == 1.5 + 10 + 36 + 7
