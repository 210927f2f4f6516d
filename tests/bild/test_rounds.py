"""Whole sequences that draft and verification write, sampled, against exact enumeration: a chi-square test that is
shown, by the laws of wrong steps, to see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch

import bild
from bild.policies.base import Policy
from bild.sampling import RowStreams, Sampler
from tests.bild.fakes import Model, hashed
from tests.bild.laws import SAMPLERS, VOCAB, Law, law_of_one_model, law_of_rounds, p_value, power, samples_of, tempered
from tests.bild.steps import (
    Step,
    Views,
    cascade_target,
    excess,
    lenient_step,
    step_of,
    with_the_rejecting_number,
)

StepOf = Callable[[Views], Step]
PLAIN, COLD, HOT = SAMPLERS


@dataclass(frozen=True)
class Case:
    """A policy, and models far enough apart for what it is to be told from (each tested)."""

    policy: Policy
    sampler: Sampler
    seed: int
    sharpness: float = 0.9
    length: int = 3

    @property
    def models(self) -> dict[str, Model]:
        seeds = {"large": self.seed, "small": self.seed + 1}
        return {name: hashed(seed, VOCAB, sharpness=self.sharpness) for name, seed in seeds.items()}

    def law(self, step: StepOf) -> Law:
        models = self.models

        @cache
        def views(prefix):
            logits = (torch.tensor(models[name](prefix), dtype=torch.float64) for name in ("small", "large"))
            return Views.of(*logits, self.sampler)

        return law_of_rounds(lambda prefix: step(views(prefix)), self.policy.max_draft, self.length)


def lenient(policy: bild.Speculative) -> dict[str, StepOf]:
    """The right step, and wrong ones."""
    lenience, beta = policy.lenience, policy.beta

    def right(views: Views) -> Step:
        return lenient_step(views, lenience, beta)

    steps: dict[str, StepOf] = {
        "right": right,
        "replaced from p": lambda v: step_of(v.q, v.p, v.p, lenience=lenience, weights=v.p),
        "bonus from q": lambda v: step_of(v.q, v.p, v.q, lenience=lenience, weights=right(v).replaced),
        "the rejecting number draws": lambda v: with_the_rejecting_number(v.q, right(v)),
    }
    if lenience > 0:
        steps["lenience ignored"] = lambda v: lenient_step(v, 0.0, None)
    if beta is not None:
        steps["beta ignored"] = lambda v: lenient_step(v, lenience, None)
        steps["beta inverted"] = lambda v: lenient_step(v, lenience, beta, power=-1.0)
    return steps


def cascade(policy: bild.SpeculativeCascade) -> dict[str, StepOf]:
    """The right step, and wrong ones."""

    def target(views: Views):
        return cascade_target(views, policy.rule, policy.alpha)

    def bonus(views: Views, named: str):
        return target(views) if named == "target" else views.p

    def right(views: Views) -> Step:
        return step_of(views.q, target(views), bonus(views, policy.bonus))

    def replaced_from(views: Views, weights) -> Step:
        return step_of(views.q, target(views), bonus(views, policy.bonus), weights=weights)

    other = {"target": "large", "large": "target"}[policy.bonus]
    steps: dict[str, StepOf] = {
        "right": right,
        "replaced from the target": lambda v: replaced_from(v, target(v)),
        "accepted and replaced as p": lambda v: step_of(v.q, v.p, bonus(v, policy.bonus)),
        "the other bonus": lambda v: step_of(v.q, target(v), bonus(v, other)),
        "the rejecting number draws": lambda v: with_the_rejecting_number(v.q, right(v)),
    }
    if policy.rule.startswith("token"):  # under the others the target is q or p, and of q nothing is replaced
        steps["replaced from what p has more"] = lambda v: replaced_from(v, excess(v.p, v.q))
    return steps


CASES = [
    Case(bild.Speculative(draft_length=1), PLAIN, 118, length=4),
    Case(bild.Speculative(draft_length=2), COLD, 127, length=4),
    Case(bild.Speculative(draft_length=3), HOT, 102, length=4),
    Case(bild.Speculative(draft_length=2, lenience=0.3), COLD, 127, 1.5),
    Case(bild.Speculative(draft_length=2, lenience=0.4, beta="normalized"), COLD, 1769, 1.2),
    Case(bild.Speculative(draft_length=2, lenience=0.5, beta=0.6), COLD, 172, 1.1),
    Case(bild.Speculative(draft_length=2, lenience=0.5, beta=1.6), HOT, 135, 0.8),
    Case(bild.SpeculativeCascade(rule="chow", alpha=0.4, draft_length=2), PLAIN, 348, 1.5),
    Case(bild.SpeculativeCascade(rule="diff", alpha=0.0, draft_length=2), COLD, 3, 1.1),
    Case(bild.SpeculativeCascade(rule="opt", alpha=0.2, draft_length=2), COLD, 999, 0.5),
    Case(bild.SpeculativeCascade(rule="token_v1", alpha=0.1, draft_length=2), HOT, 957, 0.8),
    Case(bild.SpeculativeCascade(rule="token_v2", alpha=0.1, draft_length=2), PLAIN, 662, 1.1),
    Case(bild.SpeculativeCascade(rule="token_v3", alpha=0.3, draft_length=2), PLAIN, 760, 0.8),
    Case(bild.SpeculativeCascade(rule="bild", alpha=1.4, draft_length=2), PLAIN, 79, 1.1),
    Case(bild.SpeculativeCascade(rule="chow", alpha=0.4, draft_length=1, bonus="large"), COLD, 522, 0.8),
    Case(bild.SpeculativeCascade(rule="opt", alpha=0.1, draft_length=1, bonus="large"), PLAIN, 855, 0.5),
    Case(bild.SpeculativeCascade(rule="token_v3", alpha=0.5, draft_length=1, bonus="large"), COLD, 206, 1.1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.policy} {case.sampler}")
def test_samples_follow_the_law_of_their_rounds(case):
    steps = (lenient if isinstance(case.policy, bild.Speculative) else cascade)(case.policy)
    laws = {name: case.law(step) for name, step in steps.items()}
    law = laws.pop("right")
    for name, wrong in laws.items():
        noncentrality, share_seen = power(law, wrong)
        assert (noncentrality > 150, share_seen > 0.999) == (True, True), name
    samples = samples_of(case.policy, case.sampler, length=case.length, **case.models)
    assert p_value(samples, law) > 1e-3


DRAW = RowStreams.draw


def numbers_of_the_draft_again(streams, n, where):
    drafted = DRAW(streams, n, where)[:, : n // 2]
    return torch.cat([drafted, drafted, drafted[:, :1]], dim=1)


def test_numbers_that_have_drawn_a_draft_must_not_accept_it(monkeypatch):
    case = CASES[0]
    monkeypatch.setattr(RowStreams, "draw", numbers_of_the_draft_again)
    samples = samples_of(case.policy, case.sampler, length=case.length, **case.models)
    assert p_value(samples, case.law(lenient(case.policy)["right"])) < 1e-6


@pytest.mark.parametrize("case", CASES[:3] + CASES[7:14], ids=lambda case: f"{case.policy} {case.sampler}")
def test_rounds_write_what_their_target_does_alone(case):
    """Where the bonus follows the target, too: the enumeration of rounds against that of tokens."""
    models, policy = case.models, case.policy
    if isinstance(policy, bild.Speculative):
        target, law = tempered(models["large"], case.sampler), case.law(lenient(policy)["right"])
    else:

        def target(prefix):
            logits = (torch.tensor(models[name](prefix), dtype=torch.float64) for name in ("small", "large"))
            return cascade_target(Views.of(*logits, case.sampler), policy.rule, policy.alpha)

        law = case.law(cascade(policy)["right"])
    expected = law_of_one_model(target, case.length)
    assert law == pytest.approx(expected | dict.fromkeys(law.keys() - expected.keys(), 0.0), abs=1e-9)
