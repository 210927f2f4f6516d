"""Speculative cascades: their targets by hand, their choices, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

import bild
from bild.policies.deferral import RULES, defers, greedy_mixture, mixture, total_variation
from bild.sampling import Sampler
from bild.types import Scores, Steps
from tests.bild.fakes import counting, hashed, run
from tests.bild.laws import SAMPLERS, plain
from tests.bild.models import assert_a_batch_is_its_rows, pair, sources

SAMPLED = Sampler(do_sample=True)
ALPHAS = {"chow": 0.5, "diff": 0.0, "opt": 0.3, "token_v1": 0.3, "token_v2": 0.3, "token_v3": 0.6, "bild": 1.2}
NEVER = {"opt": 1e9, "bild": math.inf}
ALWAYS = {"opt": -1e9}
"""The alphas at which the large model is asked never and always, where they are not 2 and -2."""


# Targets by hand


def view(processed: list[float], sampler: Sampler) -> Scores:
    logits = torch.tensor([[processed]], dtype=torch.float64).log()
    return Scores(raw=logits, processed=logits, sampler=sampler)


def target_by(rule: str, alpha: float, small: list[float], large: list[float], sampler: Sampler = SAMPLED):
    steps, scores = Steps([view(small, sampler)], 1, len(small)), view(large, sampler)
    deferred = defers(rule, alpha, steps, scores)
    return mixture(deferred, steps.tempered, scores.tempered)[0, 0].tolist()


Q = [0.5, 0.3, 0.2]
P = [0.1, 0.2, 0.7]
HANDED_OVER_02 = [0.5 + 0.1 * 0.2, 0.3 + 0.2 * 0.2, 0.7 * 0.2]
HANDED_OVER_05 = [0.1 * 0.5, 0.3 + 0.2 * 0.5, 0.2 + 0.7 * 0.5]
HANDED_OVER_08 = [0.1 * 0.8, 0.2 * 0.8, 0.2 + 0.7 * 0.8]


@pytest.mark.parametrize(
    ("rule", "alpha", "expected"),
    [
        ("chow", 0.49, P),  # 0.5 < 0.51
        ("chow", 0.51, Q),
        ("diff", 0.19, P),  # 0.5 < 0.7 - 0.19
        ("diff", 0.21, Q),
        ("opt", 0.39, P),  # total variation 0.5: 0.5 < 0.7 - 0.195
        ("opt", 0.41, Q),
        ("bild", 2.30, P),  # -log 0.1 = 2.3026
        ("bild", 2.31, Q),
        ("token_v1", 0.1, [0.1, 0.2, 0.7]),  # all below 0.6
        ("token_v1", 0.3, [0.5 + 0.1 * 0.5, 0.2 * 0.5, 0.7 * 0.5]),  # 0.3 and 0.2 below 0.4
        ("token_v1", 0.45, HANDED_OVER_02),  # 0.2 below 0.25
        ("token_v2", 0.1, HANDED_OVER_08),  # 0.1 and 0.2 below 0.6
        ("token_v2", 0.55, HANDED_OVER_05),  # 0.1 below 0.15
        ("token_v2", 0.61, Q),
        ("token_v3", 0.7, HANDED_OVER_08),  # 0.1 and 0.2 below 0.21
        ("token_v3", 0.8, HANDED_OVER_05),  # 0.1 below 0.14
        ("token_v3", 0.86, Q),
    ],
)
def test_targets(rule, alpha, expected):
    assert target_by(rule, alpha, Q, P) == pytest.approx(expected)


def test_tests_are_on_plain_probabilities_and_mixing_on_tempered_ones():
    """At temperature 1/2, q = (25, 9, 4) / 38 and p = (1, 4, 49) / 54."""
    cold = Sampler(do_sample=True, temperature=0.5)
    q, p = [x / 38 for x in (25, 9, 4)], [x / 54 for x in (1, 4, 49)]
    for rule, alpha, expected in (
        ("chow", 0.49, p), ("chow", 0.51, q), ("diff", 0.19, p), ("diff", 0.21, q), ("bild", 2.30, p),
        ("bild", 2.31, q),
        ("token_v3", 0.8, [p[0] * q[0], q[1] + p[1] * q[0], q[2] + p[2] * q[0]]),
        ("token_v1", 0.45, [q[0] + p[0] * q[2], q[1] + p[1] * q[2], p[2] * q[2]]),
    ):  # fmt: skip
        assert target_by(rule, alpha, Q, P, cold) == pytest.approx(expected)
    # Total variation is that of what is drawn from: 25/38 - 1/54 + 9/38 - 4/54 = 0.8021, so 0.2 / 0.8021 = 0.2493.
    assert target_by("opt", 0.249, Q, P, cold) == pytest.approx(p)
    assert target_by("opt", 0.250, Q, P, cold) == pytest.approx(q)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.1, 0.3, 0.5, 0.9, 2.0])
def test_every_target_is_a_distribution_and_at_temperature_zero_a_choice(rule, alpha):
    models = [hashed(seed, 12, sharpness=1.0, twin=99) for seed in (51, 52)]
    for place in range(40):
        small, large = (torch.softmax(torch.tensor(model((0, place))), -1).tolist() for model in models)
        assert sum(target_by(rule, alpha, small, large)) == pytest.approx(1.0)
        steps, scores = Steps([view(small, Sampler())], 1, 12), view(large, Sampler())
        deferred = defers(rule, alpha, steps, scores)
        choice = greedy_mixture(deferred, steps.choice, scores.choice)
        assert total_variation(steps, scores).item() == (steps.tempered - scores.tempered).clamp(min=0).sum().item()
        one_hot = mixture(deferred, steps.tempered, scores.tempered)[0, 0]
        assert one_hot.tolist() == [float(token == int(choice)) for token in range(12)]


# Temperature 0


def closed_form(rule: str, alpha: float, q: list[float], p: list[float]) -> int:
    """The token that the rule makes of two plain distributions."""
    mine, theirs = q.index(max(q)), p.index(max(p))
    deferred = {
        "chow": max(q) < 1 - alpha,
        "diff": max(q) < max(p) - alpha,
        "opt": max(q) < max(p) - (alpha if mine != theirs else 0),
        "bild": -math.log(p[mine]) > alpha,
        "token_v1": max(q) < max(p) - alpha,
        "token_v2": p[mine] < max(p) - alpha,
        "token_v3": p[mine] < max(p) * (1 - alpha),
    }[rule]
    return theirs if deferred else mine


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bonus", ["target", "large"])
def test_greedy_text_is_the_closed_form(rule, bonus):
    larges = [hashed(seed, 7, sharpness=1.0) for seed in range(12)]
    smalls = [hashed(seed + 50, 7, sharpness=1.0) for seed in range(12)]
    alpha = ALPHAS[rule]
    policy = bild.SpeculativeCascade(rule=rule, alpha=alpha, draft_length=3, bonus=bonus)
    written, stats, traces, _ = run(larges, smalls, policy, vocab_size=7, max_new_tokens=11)
    # A batch of one writes the same.
    alone = run(larges[3], smalls[3], policy, vocab_size=7, max_new_tokens=11)
    assert (alone[0][0], alone[1][0]) == (written[3], stats[3])
    for row, (text, count) in enumerate(zip(written, stats, strict=True)):
        reasons = [entry.reason for entry in traces[row] if entry.reason != "discarded"]
        for place, (token, reason) in enumerate(zip(text, reasons, strict=True)):
            q, p = (plain(models[row])((0, *text[:place])) for models in (smalls, larges))
            own = p.index(max(p)) if bonus == "large" and reason == "bonus" else closed_form(rule, alpha, q, p)
            assert token == own
        assert count.tokens == len(text)
        assert 1 not in text[:-1]
        assert len(text) == 11 or text[-1] == 1
        assert count.large_steps == count.rounds
        looks = sum(reason in ("bonus", "rollback") for reason in reasons)
        assert count.drafted <= count.small_steps <= count.drafted + (looks if bonus == "target" else 0)
    assert sum(count.rolled_back for count in stats) > 3
    assert any(entry.reason == "bonus" for trace in traces for entry in trace)


def test_the_third_token_rule_is_lenient_speculation_when_greedy():
    larges = [hashed(seed, 7) for seed in range(20)]
    smalls = [hashed(seed + 50, 7, twin=seed) for seed in range(20)]
    cascade = bild.SpeculativeCascade(rule="token_v3", alpha=0.7, draft_length=3, bonus="large")
    lenient = bild.Speculative(lenience=0.7, draft_length=3)
    texts = [run(larges, smalls, policy, vocab_size=7, max_new_tokens=9)[:2] for policy in (cascade, lenient)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("sampler", [Sampler(), SAMPLED], ids=str)
def test_where_nothing_was_drafted_the_large_model_writes(sampler):
    """A rule needs both views; a source that falls silent leaves one."""
    sure = counting(20, sure=1.0, offset=2)

    def fitful(prefix):
        return [-math.inf] * 20 if len(prefix) % 2 == 0 else sure(prefix)

    never = bild.SpeculativeCascade(alpha=2.0)
    generators = None if sampler.greedy else [torch.Generator().manual_seed(0)]
    written, _, _, _ = run(
        counting(20, sure=1.0), fitful, never, vocab_size=20, max_new_tokens=6, sampler=sampler, generators=generators
    )
    assert written == [[3, 4, 6, 7, 9, 10]]


# Limits


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampler", [Sampler(), SAMPLERS[1]], ids=str)
def test_at_its_limits_it_is_speculative_decoding_and_the_small_model(rule, sampler):
    def written(policy):
        generators = None if sampler.greedy else [torch.Generator().manual_seed(row) for row in range(60)]
        larges = [hashed(row, 8) for row in range(60)]
        smalls = [hashed(row + 100, 8, twin=row) for row in range(60)]
        return run(larges, smalls, policy, vocab_size=8, max_new_tokens=7, sampler=sampler, generators=generators)

    always = bild.SpeculativeCascade(rule=rule, alpha=ALWAYS.get(rule, -2.0), draft_length=3)
    never = bild.SpeculativeCascade(rule=rule, alpha=NEVER.get(rule, 2.0), draft_length=3)
    assert written(always)[0] == written(bild.Speculative(draft_length=3))[0]
    texts, stats, _, _ = written(never)
    assert sum(count.rolled_back for count in stats) == 0
    if sampler.greedy:
        assert texts == written(bild.SmallOnly())[0]


# Real models, on every engine


@pytest.mark.parametrize("engine", ["hf", "static", "static+int8"])
@pytest.mark.parametrize("do_sample", [False, True])
def test_limits_on_every_engine(engine, do_sample):
    large, small = pair(2)
    ids, mask = sources(2, [6, 1, 4, 3])

    def written(policy):
        return bild.generate(
            large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=10, engine=engine,
            do_sample=do_sample, top_k=8, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip

    lossless = written(bild.Speculative(draft_length=4))
    for rule in ("opt", "token_v2"):
        policy = bild.SpeculativeCascade(rule=rule, alpha=ALWAYS.get(rule, -2.0), draft_length=4)
        assert written(policy).sequences.equal(lossless.sequences)
    if not do_sample:
        assert lossless.sequences.equal(written(bild.LargeOnly()).sequences)
        never = written(bild.SpeculativeCascade(rule="token_v2", alpha=2.0, draft_length=4))
        assert never.sequences.equal(written(bild.SmallOnly()).sequences)


@pytest.mark.parametrize("rule", ["opt", "token_v1"])
@pytest.mark.parametrize("shortlist", [None, [3, 4, 5, 8, 9, 11]])
def test_batch_is_row_by_row(rule, shortlist):
    policy = bild.SpeculativeCascade(rule=rule, alpha=0.2, draft_length=4)
    assert_a_batch_is_its_rows(policy=policy, max_new_tokens=9, temperature=1.5, shortlist=shortlist)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": math.nan}, r"alpha=nan must be a number"),
        ({"alpha": 0.1, "draft_length": 0}, r"draft_length=0 must be a whole number >= 1"),
        ({"alpha": 0.1, "rule": "optimal"}, r"rule='optimal' must be 'chow', 'diff', .*'token_v3' or 'bild'"),
        ({"alpha": 0.1, "bonus": "small"}, r"bonus='small' must be 'target' or 'large'"),
    ],
)
def test_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        bild.SpeculativeCascade(**arguments)
