"""Every reported number on rows whose answer is spelled out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.decoding.rows import DecodedRow, kept_tokens
from pipelines.evaluation import measures
from pipelines.evaluation.timings import Timing
from tests.evaluation.conftest import stats, token

EOS = [1]
# Two accepted, one discarded and replaced; then one accepted, a fallback, an unverified end.
TRACE = [
    token(5, "draft"),
    token(6, "draft"),
    token(7, "discarded"),
    token(8, "rollback"),
    token(9, "draft", round_=1),
    token(10, "fallback", round_=1),
    token(1, "draft", round_=2),
]
OURS = DecodedRow(
    "ours",
    [5, 6, 8, 9, 10, 1],
    stats(rounds=3, drafted=5, accepted=4, rolled_back=1, fallbacks=1, small_steps=6, large_steps=2, tokens=6),
    TRACE,
)
LARGE = DecodedRow(
    "large",
    [5, 6, 8, 9],
    stats(rounds=4, large_steps=4, tokens=4),
    [token(number, "large") for number in (5, 6, 8, 9)],
)


def timing(method: str, milliseconds: float, encoder: float, tokens: list[int], row: int = 0) -> Timing:
    return Timing(row, method, milliseconds, encoder, tokens)


def test_kept_tokens_leave_out_what_was_discarded():
    assert kept_tokens(TRACE) == OURS.tokens


def test_rates():
    rates = measures.rates([OURS, LARGE], [LARGE, LARGE], EOS)
    assert rates == pytest.approx(
        {
            "acceptance": 4 / 5,
            "mean_accepted_length": 10 / 6,
            "large_steps_per_token": 6 / 10,
            "small_steps_per_token": 6 / 10,
            "fallback_rate": 1 / 7,
            "rollback_rate": 1 / 7,
            "large_share": 6 / 10,
            "exact_match_with_large": 1 / 2,
            "cut_off": 1 / 2,
            "mean_tokens": 5,
            "mean_layers": None,
        }
    )


def test_layers_are_averaged_over_tokens():
    rows = [
        DecodedRow("", [5], stats(tokens=len(taken)), [replace(token(5, "large"), layers=layers) for layers in taken])
        for taken in ([1, 4, 1], [2])
    ]
    assert measures.rates(rows, rows, EOS)["mean_layers"] == 2


def alone(milliseconds: list[float]) -> list[Timing]:
    """The large model alone, texts of one to three tokens, so many milliseconds a token."""
    lengths = [1 + row % 3 for row in range(len(milliseconds))]
    return [
        timing("large", each * length, 0.0, [5] * length, row)
        for row, (each, length) in enumerate(zip(milliseconds, lengths, strict=True))
    ]


def test_a_steady_machine_is_one_whatever_the_lengths_of_the_texts():
    found = measures.steadiness(alone([10.0, 11.0] * 20))
    assert found == {"mean_over_median": 1.0, "second_half_over_first": 1.0, "disturbed": False}


@pytest.mark.parametrize(
    ("milliseconds", "spread", "drift"),
    [
        ([10.0] * 20 + [12.0] * 20, 1.0, 1.2),
        ([12.0] * 20 + [10.0] * 20, 1.0, 1 / 1.2),
        ([10.0] * 39 + [100.0], 1.225, 1.0),
    ],
    ids=["slower", "faster", "interrupted"],
)
def test_a_disturbed_machine_says_so(milliseconds, spread, drift):
    found = measures.steadiness(alone(milliseconds))
    assert found["disturbed"]
    assert found["mean_over_median"] == pytest.approx(spread)
    assert found["second_half_over_first"] == pytest.approx(drift)


def test_of_a_few_examples_nothing_is_known_about_the_machine():
    assert measures.steadiness(alone([10.0, 30.0] * 9)) is None


def test_rates_that_have_nothing_to_divide_by_are_unknown():
    rates = measures.rates([LARGE], [LARGE], EOS)
    assert rates["acceptance"] is None
    assert rates["large_share"] == 1
    small = DecodedRow("s", [5], stats(rounds=1, drafted=1, accepted=1, small_steps=1, tokens=1), [token(5, "draft")])
    alone = measures.rates([small], [LARGE], EOS)
    assert alone["mean_accepted_length"] is None
    assert alone["acceptance"] is None, "nobody has checked"


def test_written_by_counts_every_reason():
    assert measures.written_by([OURS]) == {
        "draft": 4,
        "fallback": 1,
        "rollback": 1,
        "bonus": 0,
        "large": 0,
        "discarded": 1,
    }


def test_latency_is_a_ratio_of_totals_on_the_same_examples():
    large = [timing("large", ms, 2.0, [5, 6, 8, 9], row) for row, ms in enumerate((10.0, 30.0, 20.0))]
    ours = [timing("policy", ms, 4.0, [5, 6, 1], row) for row, ms in enumerate((8.0, 12.0, 10.0))]
    rows = [DecodedRow("", [5, 6, 1], stats(), [])] * 2 + [DecodedRow("", [5, 1], stats(), [])]
    result = measures.latency(ours, rows, large, seed=0)
    assert result["speedup"]["value"] == pytest.approx(60 / 30)
    assert 10 / 8 <= result["speedup"]["low"] <= 2 <= result["speedup"]["high"] <= 30 / 12
    assert (result["median_ms"], result["mean_ms"]) == (10, 10)
    assert result["p90_ms"] == pytest.approx(np.quantile([8, 12, 10], 0.9))
    assert result["tokens"] == 9
    assert result["tokens_per_second"] == pytest.approx(9 / 0.030)
    assert result["decode_only"]["speedup"]["value"] == pytest.approx(54 / 18)
    assert result["decode_only"]["tokens_per_second"] == pytest.approx(9 / 0.018)
    assert result["unlike_batched"] == 1


def test_cost_ratio_is_a_small_step_over_a_large_one():
    small, large = [timing("small", 11.0, 1.0, [])], [timing("large", 42.0, 2.0, [])]
    assert measures.cost_ratio(small, large, small_steps=10, large_steps=8) == pytest.approx((10 / 10) / (40 / 8))


def test_predicted_speedup_is_leviathans_factor():
    # gamma = 3 drafted per large step, c = 0.1, 2.5 tokens per large step.
    total = {"tokens": 25, "small_steps": 30, "large_steps": 10}
    assert measures.predicted_speedup(total, 0.1) == pytest.approx(2.5 / (3 * 0.1 + 1))
    assert measures.predicted_speedup(total, None) is None
