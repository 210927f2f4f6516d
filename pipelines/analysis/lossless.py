"""Lossless decoding by draft length: what theory and the positions of the texts predict, beside what was measured.

Knows ``Positions``, step costs and decoded rows; knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.analysis import leviathan
from pipelines.decoding.positions import Positions


@dataclass(frozen=True)
class Costs:
    """Milliseconds, encoders left out."""

    small: float
    """a step of what drafts"""
    large: dict[int, float]
    """a step of the large model, by width"""
    small_token: float | None
    """a token of the small model alone: its step, and what the loop does around it; None where it writes none alone"""
    large_token: float
    """the same of the large model"""

    @classmethod
    def of(cls, steps: Mapping[str, Any], alone: Mapping[str, float]) -> Costs:
        """From the section "steps", and the time per token of each model alone by role."""
        one = steps["large"][0]["ms"]
        large = {entry["width"]: one * entry["over_one"]["value"] for entry in steps["large"]}
        return cls(one * steps["c"]["value"], large, alone.get("small"), alone["large"])


def by_draft_length(
    rows: Sequence[Positions], lengths: Sequence[int], limit: int, costs: Costs, measured: Mapping[int, dict[str, Any]]
) -> dict[str, Any]:
    """The section "draft_lengths" of a result.

    Args:
        rows: the timed examples; predictions are made for these, of which the measurement is.
        lengths: draft lengths, 1..n.
        limit: tokens of a text at most.
        measured: by draft length, a method's entry with "counts", "rates" and "latency".
    """
    alpha = float(np.mean([value for row in rows for value in row.overlap]))
    points = []
    for g in lengths:
        steps = leviathan.add([leviathan.walk(row.kept, g, limit) for row in rows])
        tokens = sum(len(row.kept) for row in rows)
        points.append(
            {
                "draft_length": g,
                "predicted_tokens_per_large_step": {
                    "formula": leviathan.tokens_per_large_step(alpha, g),
                    "positions": tokens / steps.n_large,
                },
                "predicted_speedup": predicted(alpha, g, tokens, steps, costs),
                **measured[g],
            }
        )
    ways = points[0]["predicted_speedup"]
    best = {way: max(points, key=lambda point: point["predicted_speedup"][way])["draft_length"] for way in ways}
    fastest = max(points, key=lambda point: point["latency"]["decode_only"]["speedup"]["value"])
    return {"alpha": alpha, "best": {**best, "measured": fastest["draft_length"]}, "points": points}


def predicted(alpha: float, g: int, tokens: int, steps: leviathan.StepCounts, costs: Costs) -> dict[str, float]:
    """Speedups of decoding, each with one assumption less than the one before.

    "formula": Leviathan's. "positions": with the steps that these texts take, in place of expectations. "widths": with
    a large step at its cost by width. "loop": with what the loop adds to every step of either model; known where the
    small one writes alone.
    """
    c, one = costs.small / costs.large[1], costs.large[1]
    models_ms = steps.milliseconds(costs.small, costs.large)
    found = {
        "formula": leviathan.speedup(alpha, g, c),
        "positions": tokens / (steps.small * c + steps.n_large),
        "widths": tokens * one / models_ms,
    }
    if costs.small_token is not None:
        loop_ms = steps.small * (costs.small_token - costs.small) + steps.n_large * (costs.large_token - one)
        found["loop"] = tokens * costs.large_token / (models_ms + loop_ms)
    return found
