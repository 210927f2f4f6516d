"""What one step of a policy that verifies draws, token by token, is its closed form to seven digits, without a sample;
what a wrong step draws is not."""

from __future__ import annotations

import inspect
import textwrap

import pytest
import torch

import bild
from bild.policies import deferral, speculation, speculative, speculative_cascade
from bild.policies.deferral import RULES
from bild.sampling import Sampler
from tests.bild.laws import SAMPLERS
from tests.bild.steps import Masses, Views, cascade_target, lenient_step, step_of, verified_step

WIDE = Sampler(do_sample=True, temperature=1.3, top_k=12)
ALPHAS = {
    "chow": 0.45, "diff": 0.05, "opt": 0.3, "token_v1": 0.3, "token_v2": 0.3, "token_v3": 0.6, "bild": 1.2,
}  # fmt: skip
LENIENT = [(0.0, None), (0.0, "normalized"), (0.0, 1.4), (0.3, None), (0.5, "normalized"), (0.5, 0.6), (0.3, 1.7)]


def logits(pairs: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, V) of a small and of a large model that often disagree, sure here and there."""
    generator = torch.Generator().manual_seed(vocab_size)
    drawn = torch.randn(3, pairs, 3, vocab_size, generator=generator, dtype=torch.float64)
    shared, small, large = drawn * torch.rand(pairs, 3, 1, generator=generator, dtype=torch.float64).mul(2).add(0.5)
    return small + 0.5 * shared, large + 0.5 * shared


PAIRS = {vocab_size: logits(pairs, vocab_size) for vocab_size, pairs in ((5, 12), (12, 4), (50, 1))}


def steps_and_views(policy, sampler: Sampler, vocab_size: int, position: int, *, looked_ahead: bool = True):
    """What the policy does at one position of each pair, and what the models say there and behind the draft."""
    small, large = PAIRS[vocab_size]
    steps = verified_step(policy, small, large, sampler, position, looked_ahead=looked_ahead)
    views = [
        [Views.of(mine, theirs, sampler) for mine, theirs in zip(small[:, place], large[:, place], strict=True)]
        for place in (position, 2)
    ]
    return zip(steps, *views, strict=True)


def same(one: Masses, other: Masses) -> bool:
    return one == pytest.approx(other, abs=1e-7)


def follows_lenient(policy: bild.Speculative, sampler: Sampler, vocab_size: int, position: int) -> bool:
    alike = True
    for step, here, behind in steps_and_views(policy, sampler, vocab_size, position):
        expected = lenient_step(here, policy.lenience, policy.beta)
        alike &= same(step.accepted, expected.accepted) and same(step.replaced, expected.replaced)
        alike &= same(step.bonus, behind.p)
        if policy.lossless:
            assert same(expected.written, here.p)
    return alike


def follows_cascade(policy, sampler: Sampler, vocab_size: int, position: int, *, looked_ahead: bool = True) -> bool:
    alike = True
    for step, here, behind in steps_and_views(policy, sampler, vocab_size, position, looked_ahead=looked_ahead):
        target = cascade_target(here, policy.rule, policy.alpha)
        alike &= same(step.written, target) and same(step.accepted, step_of(here.q, target, target).accepted)
        alike &= same(step.bonus, cascade_target(behind, policy.rule, policy.alpha) if looked_ahead else behind.p)
    return alike


CASES = [(sampler, 5, position) for sampler in SAMPLERS for position in (0, 1)] + [(WIDE, 12, 1), (WIDE, 50, 0)]


@pytest.mark.parametrize(("lenience", "beta"), LENIENT)
def test_speculation_follows_its_closed_form(lenience, beta):
    policy = bild.Speculative(lenience=lenience, beta=beta)
    for case in CASES:
        assert follows_lenient(policy, *case), case


@pytest.mark.parametrize("rule", RULES)
def test_cascades_follow_their_targets(rule):
    kinds = set()
    for sampler, vocab_size, position in CASES:
        policy = bild.SpeculativeCascade(rule=rule, alpha=ALPHAS[rule])
        assert follows_cascade(policy, sampler, vocab_size, position), (sampler, vocab_size)
        assert follows_cascade(policy, sampler, vocab_size, position, looked_ahead=False), (sampler, vocab_size)
        small, large = (logits[:, position] for logits in PAIRS[vocab_size])
        for views in (Views.of(*both, sampler) for both in zip(small, large, strict=True)):
            target = cascade_target(views, rule, ALPHAS[rule])
            kinds.add("q" if same(target, views.q) else "p" if same(target, views.p) else "neither")
    assert kinds >= ({"neither"} if rule.startswith("token") else {"q", "p"})


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_token_cascade_keeps_all_and_goes_on_with_the_large_model(sampler):
    for step, here, behind in steps_and_views(bild.TokenCascade(alpha=0.5), sampler, 5, 1):
        assert same(step.accepted, here.q)
        assert same(step.replaced, [0.0] * 5)
        assert same(step.bonus, behind.p)


# Wrong steps


def plant(monkeypatch, owner, name: str, right: str, wrong: str) -> None:
    """Exchange an expression of a function, wherever the policies call it."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert right in source
    made: dict[str, object] = {}
    exec(source.replace(right, wrong), function.__globals__, made)
    for place in (owner, speculative, speculative_cascade):
        if getattr(place, name, None) is function:
            monkeypatch.setattr(place, name, made[name])


SHARED = [
    (speculation, "residual", "(target_probs - small_probs)", "target_probs"),
    (speculation, "residual", "(target_probs - small_probs)", "(small_probs - target_probs)"),
    (speculation, "concluded", "at(uniforms, draft.n_drafted)", "at(uniforms, n_accepted)"),
    (speculation, "concluded", "replacement, bonus)", "bonus, replacement)"),
    (speculation, "accepted", "factor * drawn", "drawn"),
    (speculation, "accepted", "* (factor * drawn) < wanted", "* drawn < factor * wanted"),
    (speculation, "accepted", "* (factor * drawn) < wanted", "* wanted < factor * drawn"),
]
LENIENT_MUTANTS = [
    *SHARED,
    (bild.Speculative, "_replacement", "large_probs / beta", "large_probs * beta"),
    (bild.Speculative, "_replacement", "large_probs / beta", "large_probs"),
    (bild.Speculative, "_replacement", "residual(large_probs / beta, small_probs)", "large_probs"),
    (bild.Speculative, "verify", "factor=1 - self.lenience", "factor=1 / (1 - self.lenience)"),
    (bild.Speculative, "verify", "large_there, uniforms)", "small_there, uniforms)"),
    (speculative, "normalizer", "large_probs / (1 - lenience)", "large_probs"),
    (speculative, "normalizer", "(count - 1)", "(count - 2)"),
]
CASCADE_MUTANTS = [
    *SHARED[:4],
    (bild.SpeculativeCascade, "verify", "residual(target_there, ", "residual(at(large.tempered, n_accepted), "),
    (bild.SpeculativeCascade, "verify", "target, uniforms)", "large.tempered, uniforms)"),
    (bild.SpeculativeCascade, "verify", "rule_goes_on.unsqueeze(-1), ", "~rule_goes_on.unsqueeze(-1), "),
    (bild.SpeculativeCascade, "verify", "rule_goes_on = draft.looked_ahead", "rule_goes_on = ~draft.stopped"),
    (bild.SpeculativeCascade, "verify", "rule_goes_on = draft.looked_ahead", "rule_goes_on = draft.stopped"),
    (deferral, "mixture", "handed_over + large_probs", "handed_over + small_probs"),
    (deferral, "mixture", "torch.where(deferred, small_probs, 0)", "torch.where(deferred, large_probs, 0)"),
]
SEEN_IN = [(sampler, 5, 1) for sampler in SAMPLERS] + [(WIDE, 12, 1)]


@pytest.mark.parametrize("mutant", LENIENT_MUTANTS, ids=lambda mutant: f"{mutant[1]}: {mutant[3]}")
def test_a_wrong_lenient_step_is_seen(mutant, monkeypatch):
    plant(monkeypatch, *mutant)
    policy = bild.Speculative(lenience=0.5, beta="normalized")
    for case in SEEN_IN:
        assert not follows_lenient(policy, *case), case


@pytest.mark.parametrize("rule", ["token_v1", "token_v2"])
@pytest.mark.parametrize("mutant", CASCADE_MUTANTS, ids=lambda mutant: f"{mutant[1]}: {mutant[3]}")
def test_a_wrong_cascade_is_seen(mutant, rule, monkeypatch):
    plant(monkeypatch, *mutant)
    policy = bild.SpeculativeCascade(rule=rule, alpha=ALPHAS[rule])
    for case in SEEN_IN:
        assert not (follows_cascade(policy, *case) and follows_cascade(policy, *case, looked_ahead=False)), case
