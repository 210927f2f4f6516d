"""Decoded rows and timings to the numbers of a result. Every definition of a reported number is here.

Knows counts, tokens and milliseconds; knows nothing about models, files or how the rows came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.scoring import exact_match, paired_bootstrap
from pipelines.decoding.store import STATS
from pipelines.evaluation.timings import Timing

STEADY_FROM = 20  # timed examples: of fewer, chance alone says as much
DISTURBED = 1.15  # quiet runs stay below 1.1 either way
LARGE_REASONS = ("fallback", "rollback", "bonus", "large")


def counts(rows: Sequence[DecodedRow]) -> dict[str, int]:
    """``bild.RowStats`` summed over rows."""
    return {name: sum(getattr(row.stats, name) for row in rows) for name in STATS}


def written_by(rows: Sequence[DecodedRow]) -> dict[str, int]:
    """Tokens by the reason of their writing (``bild.TokenTrace.reason``), "discarded" included."""
    found = Counter(token.reason for row in rows for token in row.trace)
    return {reason: found[reason] for reason in ("draft", *LARGE_REASONS, "discarded")}


def acceptance(total: Mapping[str, int]) -> float | None:
    """Drafted tokens that stand, as a share; None where the large model never ran, since nobody has checked them.

    Args:
        total: ``counts`` of a method.
    """
    return None if total["large_steps"] == 0 else _ratio(total["accepted"], total["drafted"])


def rates(rows: Sequence[DecodedRow], large_rows: Sequence[DecodedRow], eos: Sequence[int]) -> dict[str, float | None]:
    """What a policy did, as shares. None where there is nothing to divide by.

    Args:
        rows: what the method wrote.
        large_rows: what the large model alone wrote for the same examples.
        eos: ids that end a text.
    """
    total, by = counts(rows), written_by(rows)
    taken = [token.layers for row in rows for token in row.trace if token.layers is not None]
    return {
        "acceptance": acceptance(total),
        # Tokens per pass of the large model.
        "mean_accepted_length": _ratio(total["tokens"], total["large_steps"]),
        "large_steps_per_token": _ratio(total["large_steps"], total["tokens"]),
        "small_steps_per_token": _ratio(total["small_steps"], total["tokens"]),
        # Rounds whose draft was ended by low confidence.
        "fallback_rate": _ratio(total["fallbacks"], total["rounds"]),
        # Rounds in which the large model replaced a drafted token.
        "rollback_rate": _ratio(by["rollback"], total["rounds"]),
        # Written tokens that are the large model's.
        "large_share": _ratio(sum(by[reason] for reason in LARGE_REASONS), total["tokens"]),
        # Texts that are token for token what the large model alone writes.
        "exact_match_with_large": exact_match([row.tokens for row in rows], [row.tokens for row in large_rows]),
        # Texts that ended at the length limit, without EOS.
        "cut_off": sum(not row.tokens or row.tokens[-1] not in eos for row in rows) / len(rows),
        "mean_tokens": total["tokens"] / len(rows),
        # Decoder layers per written token, where tokens may leave before the last.
        "mean_layers": _ratio(sum(taken), len(taken)),
    }


def latency(
    timings: Sequence[Timing], rows: Sequence[DecodedRow], large: Sequence[Timing], seed: int
) -> dict[str, Any]:
    """The times of one method, beside those of the large model alone on the same examples.

    Args:
        timings: of the method, one per timed example.
        rows: what the method wrote for the whole split in batches; shows whether batch 1 wrote the same.
        large: of the large model alone, the same examples in the same order.
        seed: of the bootstrap.

    Speedup is the ratio of total times over the timed examples, its interval a paired bootstrap over them.
    """
    ours, theirs = end_to_end(timings), end_to_end(large)
    ours_decoding, theirs_decoding = decode_only(timings), decode_only(large)
    tokens = sum(len(timing.tokens) for timing in timings)
    return {
        "examples": len(timings),
        "tokens": tokens,
        "median_ms": float(np.median(ours)),
        "p90_ms": float(np.quantile(ours, 0.9)),
        "mean_ms": float(ours.mean()),
        "tokens_per_second": 1000 * tokens / float(ours.sum()),
        "speedup": speedup(theirs, ours, seed),
        "decode_only": {
            "median_ms": float(np.median(ours_decoding)),
            "p90_ms": float(np.quantile(ours_decoding, 0.9)),
            "tokens_per_second": 1000 * tokens / float(ours_decoding.sum()),
            "speedup": speedup(theirs_decoding, ours_decoding, seed),
        },
        # Examples whose text at batch 1 is not the one that was scored: rounding, or a defect.
        "unlike_batched": sum(timing.tokens != rows[timing.row].tokens for timing in timings),
    }


def speedup(large_ms: np.ndarray, method_ms: np.ndarray, seed: int) -> dict[str, float]:
    """Total time of the large model alone over total time of the method, (N,) paired, with its 95 % interval."""

    def ratio(large: np.ndarray, method: np.ndarray) -> float:
        return float(large.sum() / method.sum())

    return asdict(paired_bootstrap(large_ms, method_ms, ratio, seed))


def cost_ratio(small: Sequence[Timing], large: Sequence[Timing], small_steps: int, large_steps: int) -> float | None:
    """c, a step of the small model over a step of the large one, each alone, encoders left out.

    Args:
        small, large: of each model alone on the same examples.
        small_steps, large_steps: passes that these took.
    """
    return _ratio(float(decode_only(small).sum()) / small_steps, float(decode_only(large).sum()) / large_steps)


def steadiness(large: Sequence[Timing]) -> dict[str, Any] | None:
    """Whether something else used the machine, by the large model alone, whose tokens cost about the same all the time.

    Args:
        large: of the large model alone, in the order in which they were timed.

    Returns:
        "mean_over_median" of the milliseconds per token of an example (single ones were interrupted),
        "second_half_over_first" of their medians (the machine grew slower or faster), and "disturbed": one of them is
        further from 1 than quiet runs are. None of fewer than ``STEADY_FROM`` examples.
    """
    if len(large) < STEADY_FROM:
        return None
    per_token = end_to_end(large) / np.array([max(1, len(timing.tokens)) for timing in large])
    first, second = np.array_split(per_token, 2)
    spread = float(per_token.mean() / np.median(per_token))
    drift = float(np.median(second) / np.median(first))
    disturbed = spread > DISTURBED or max(drift, 1 / drift) > DISTURBED
    return {"mean_over_median": spread, "second_half_over_first": drift, "disturbed": disturbed}


def predicted_speedup(total: dict[str, int], c: float | None) -> float | None:
    """Leviathan's wall-time factor, decoding only, with counted tokens and steps in place of expectations.

    Tokens per large step over (small steps per large step x c + 1): what the counts would give if every pass of a
    model cost the same whatever its width, and nothing else cost anything.
    """
    if c is None:
        return None
    return _ratio(total["tokens"], total["small_steps"] * c + total["large_steps"])


def end_to_end(timings: Sequence[Timing]) -> np.ndarray:
    """(N,) milliseconds."""
    return np.array([timing.milliseconds for timing in timings])


def decode_only(timings: Sequence[Timing]) -> np.ndarray:
    """(N,) milliseconds without the encoders."""
    return end_to_end(timings) - np.array([timing.encoder_milliseconds for timing in timings])


def _ratio(value: float, by: float) -> float | None:
    return None if by == 0 else value / by
