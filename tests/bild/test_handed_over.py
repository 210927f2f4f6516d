"""Cascades that verify nothing, and the oracles: what the small model keeps and what it hands over."""

from __future__ import annotations

import math

import pytest
import torch

import bild
from bild.policies.cascade import confidence_of_texts
from bild.sampling import Sampler
from bild.types import Draft, Steps
from tests.bild.fakes import counting, hashed, reasons, run
from tests.bild.laws import LARGE, SAMPLERS, SMALL, law_of_one_model, p_value, plain, samples_of, tempered
from tests.bild.models import assert_a_batch_is_its_rows, default_dtype, pair, sources

SAMPLED = Sampler(do_sample=True)
LARGES = [hashed(seed, 7) for seed in range(16)]
SMALLS = [hashed(seed + 50, 7, twin=seed) for seed in range(16)]


def written(policy, *, sampler: Sampler | None = None, limit: int = 9):
    generators = None if sampler is None else [torch.Generator().manual_seed(row) for row in range(16)]
    return run(LARGES, SMALLS, policy, vocab_size=7, max_new_tokens=limit, sampler=sampler, generators=generators)


# Token cascade


@pytest.mark.parametrize("sampler", [None, SAMPLERS[1]], ids=str)
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_a_token_cascade_falls_back_and_never_rolls_back(alpha, sampler):
    texts, stats, traces, _ = written(bild.TokenCascade(alpha=alpha, draft_length=3), sampler=sampler)
    expected = written(bild.BigLittle(fallback=1 - alpha, rollback=math.inf, draft_length=3), sampler=sampler)[0]
    assert texts == expected
    assert sum(count.fallbacks for count in stats) > 5
    assert {reason for trace in traces for reason in reasons(trace)} == {"draft", "fallback", "bonus"}
    for count in stats:
        assert count.drafted == count.accepted == count.small_steps - count.fallbacks
        assert count.large_steps == count.tokens - count.accepted


def test_nothing_of_a_token_cascade_is_verified_at_the_limit_either():
    model = counting(20, sure=0.9)
    _, stats, _, _ = run(model, model, bild.TokenCascade(alpha=0.5), vocab_size=20, max_new_tokens=6)
    assert (stats[0].large_steps, stats[0].accepted) == (0, 6)


def test_the_limits_of_a_token_cascade():
    assert written(bild.TokenCascade(alpha=-0.1))[:2] == written(bild.LargeOnly())[:2]
    # At its cap the large model writes one token; a cap that is never reached leaves all to the small one.
    assert written(bild.TokenCascade(alpha=2, draft_length=9))[:2] == written(bild.SmallOnly())[:2]


# Sequence cascade


def drafted(probs: list[list[float]]) -> Draft:
    width = max(map(len, probs))
    return Draft(
        tokens=torch.zeros(len(probs), width, dtype=torch.long),
        n_drafted=torch.tensor([len(row) for row in probs]),
        stopped=torch.zeros(len(probs), dtype=torch.bool),
        looked_ahead=torch.zeros(len(probs), dtype=torch.bool),
        token_probs=torch.tensor([row + [0.0] * (width - len(row)) for row in probs]),
        small=Steps((), width + 1, 4),
    )


def test_scores_of_texts_by_hand():
    draft = drafted([[0.5, 0.125, 0.25], [0.5], [0.25, 0.5]])
    for quantile, expected in (
        (None, [-2, -1, -1.5]),
        (0.0, [-3, -1, -2]),
        (1.0, [-1, -1, -1]),
        (0.5, [-2, -1, -1.5]),
        (0.25, [-2.5, -1, -1.75]),
    ):
        bits = confidence_of_texts(draft, quantile) / math.log(2)
        assert bits.tolist() == pytest.approx(expected)


def test_a_probability_that_is_rounded_to_zero_is_very_low_and_still_a_number():
    for quantile in (None, 0.0, 0.3):
        assert confidence_of_texts(drafted([[0.0, 0.5, 0.5]]), quantile).item() < -20


@pytest.mark.parametrize("quantile", [None, 0.0])
def test_a_text_is_kept_or_written_again_by_the_large_model(quantile):
    policy = bild.SequenceCascade(threshold=-0.5, quantile=quantile)
    texts, stats, traces, _ = written(policy)
    small, large = written(bild.SmallOnly()), written(bild.LargeOnly())
    kept = []
    for row, (text, count, trace) in enumerate(zip(texts, stats, traces, strict=True)):
        log_probs = [
            math.log(plain(SMALLS[row])((0, *small[0][row][:place]))[token])
            for place, token in enumerate(small[0][row])
        ]
        score = sum(log_probs) / len(log_probs) if quantile is None else min(log_probs)
        kept.append(score >= -0.5)
        assert count.drafted == count.small_steps == len(small[0][row])
        if kept[-1]:
            assert (text, count) == (small[0][row], small[1][row])
            assert set(reasons(trace)) == {"draft"}
        else:
            assert text == large[0][row]
            assert (count.large_steps, count.accepted, count.rolled_back) == (len(text), 0, count.drafted)
            assert reasons(trace) == ["discarded"] * count.drafted + ["large"] * len(text)
            assert count.rounds == 1 + len(text)
    assert 2 < sum(kept) < 13


def test_the_limits_of_a_sequence_cascade():
    assert written(bild.SequenceCascade(threshold=-math.inf))[:2] == written(bild.SmallOnly())[:2]
    assert written(bild.SequenceCascade(threshold=0))[0] == written(bild.LargeOnly())[0]


def test_samples_of_a_sequence_cascade():
    threshold = -1.3
    small, large = (law_of_one_model(tempered(model, SAMPLED)) for model in (SMALL, LARGE))

    def score(text) -> float:
        return sum(math.log(plain(SMALL)((0, *text[:n]))[token]) for n, token in enumerate(text)) / len(text)

    kept = {text: prob for text, prob in small.items() if score(text) >= threshold}
    redone = 1 - sum(kept.values())
    law = {text: kept.get(text, 0.0) + redone * prob for text, prob in large.items()}
    assert 0.2 < redone < 0.8
    assert p_value(samples_of(bild.SequenceCascade(threshold=threshold), SAMPLED), law) > 1e-3


# Oracles


def mixed(defers):
    """Both models asked at every prefix."""

    def probs(prefix, sampler: Sampler = SAMPLED) -> list[float]:
        q, p = tempered(SMALL, sampler)(prefix), tempered(LARGE, sampler)(prefix)
        replaced = defers(plain(SMALL)(prefix), plain(LARGE)(prefix))
        handed_over = sum(prob for prob, is_replaced in zip(q, replaced, strict=True) if is_replaced)
        return [
            (0.0 if is_replaced else mine) + handed_over * theirs
            for mine, theirs, is_replaced in zip(q, p, replaced, strict=True)
        ]

    return probs


ORACLES = {
    bild.OracleDiff(alpha=0.0): lambda q, p: [max(q) < max(p)] * len(q),
    bild.OracleMixing(threshold=0.2): lambda q, p: [prob < 0.2 for prob in p],
}


@pytest.mark.parametrize("policy", ORACLES, ids=str)
def test_samples_of_the_oracles(policy):
    assert p_value(samples_of(policy, SAMPLED), law_of_one_model(mixed(ORACLES[policy]))) > 1e-3


@pytest.mark.parametrize("policy", ORACLES, ids=str)
def test_oracles_ask_both_models_at_every_step(policy):
    texts, stats, traces, _ = written(policy)
    for row, (text, count, trace) in enumerate(zip(texts, stats, traces, strict=True)):
        assert count.small_steps == count.large_steps == count.rounds == count.tokens == count.drafted == len(text)
        assert set(reasons(trace)) <= {"draft", "discarded", "rollback"}
        for place, token in enumerate(text):
            q, p = (plain(models[row])((0, *text[:place])) for models in (SMALLS, LARGES))
            mine = q.index(max(q))
            assert token == (p.index(max(p)) if ORACLES[policy](q, p)[mine] else mine)
    assert sum(count.rolled_back for count in stats) > 3
    assert sum(count.accepted for count in stats) > 3


def test_the_limits_of_the_oracles():
    large, small = written(bild.LargeOnly())[0], written(bild.SmallOnly())[0]
    assert written(bild.OracleDiff(alpha=-2))[0] == written(bild.OracleMixing(threshold=1.1))[0] == large
    assert written(bild.OracleDiff(alpha=2))[0] == written(bild.OracleMixing(threshold=0))[0] == small


# All of them


@pytest.mark.parametrize("engine", ["hf", "static", "static+int8"])
@pytest.mark.parametrize(
    "policy",
    [
        bild.TokenCascade(alpha=0.4, draft_length=4),
        bild.SequenceCascade(threshold=-0.6),
        bild.OracleDiff(alpha=0.1),
        bild.OracleMixing(threshold=0.1),
    ],
    ids=str,
)
def test_batch_is_row_by_row(policy, engine):
    assert_a_batch_is_its_rows(policy=policy, max_new_tokens=7, engine=engine)


@pytest.mark.parametrize(
    ("policy", "arguments", "message"),
    [
        (bild.TokenCascade, {"alpha": math.nan}, r"alpha=nan must be a number"),
        (bild.TokenCascade, {"alpha": 0.1, "rule": "diff"}, r"rule='diff' must be 'chow'"),
        (bild.TokenCascade, {"alpha": 0.1, "draft_length": 2.0}, r"draft_length=2.0 must be a whole number"),
        (bild.SequenceCascade, {"threshold": 0.1}, r"threshold=0.1 must be a log-probability <= 0"),
        (bild.SequenceCascade, {"threshold": math.nan}, r"threshold=nan must be"),
        (bild.SequenceCascade, {"threshold": -1, "quantile": 1.1}, r"quantile=1.1 must be in \[0, 1\]"),
        (bild.SequenceCascade, {"threshold": -1, "quantile": math.nan}, r"quantile=nan must be"),
        (bild.OracleDiff, {"alpha": math.nan}, r"alpha=nan must be a number"),
        (bild.OracleMixing, {"threshold": -0.1}, r"threshold=-0.1 must be a probability >= 0"),
        (bild.OracleMixing, {"threshold": math.nan}, r"threshold=nan must be"),
    ],
)
def test_ranges(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(**arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_quantile_does_not_follow_the_default_dtype(dtype):
    large, small = pair(3)
    ids, mask = sources(3, [6, 1, 4])

    def write():
        policy = bild.SequenceCascade(threshold=-1.0, quantile=0.3)
        return bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=8).sequences

    expected = write()
    with default_dtype(dtype):
        assert write().equal(expected)
