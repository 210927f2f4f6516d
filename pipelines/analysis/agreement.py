"""How alike two models are: acceptance by position and by confidence, and whether confidence can be believed.

Knows ``Positions``; knows nothing about how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.decoding.positions import Positions
from pipelines.decoding.scoring import paired_bootstrap

PARTS = 32  # groups of neighbouring positions at most


def agreement(rows: Sequence[Positions], bins: int, seed: int, guesses: bool) -> dict[str, Any]:
    """The section "agreement" of a result. Intervals are bootstrapped over rows; ``bins`` of confidence.

    Args:
        guesses: what drafts has no confidence, and nothing to say at some positions. In place of what confidence is
            worth stands how often it guesses, and how often a guess is accepted.
    """
    table = {
        name: np.concatenate([np.asarray(getattr(row, name)) for row in rows])
        for name in ("overlap", "plain_overlap", "agrees", "confidence", "right")
    }
    place = np.concatenate([np.arange(len(row.overlap)) for row in rows])
    return {
        "examples": len(rows),
        "positions": len(place),
        "alpha": _mean(rows, "overlap", seed),
        "plain_alpha": _mean(rows, "plain_overlap", seed),
        "same_choice": _mean(rows, "agrees", seed),
        **(_of_guesses(table) if guesses else _of_confidence(table, bins)),
        "by_position": by_position(place, table),
    }


def _of_confidence(table: Mapping[str, np.ndarray], bins: int) -> dict[str, Any]:
    reliability = by_confidence(table["confidence"], table["right"], table["overlap"], bins)
    return {
        "confidence": float(table["confidence"].mean()),
        "right": float(table["right"].mean()),
        "calibration_error": calibration_error(reliability),
        "by_confidence": reliability,
    }


def _of_guesses(table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    guessed = table["confidence"] > 0
    return {"guessed": float(guessed.mean()), "accepted_if_guessed": _mean_or_none(table["overlap"][guessed])}


def by_confidence(confidence: np.ndarray, right: np.ndarray, overlap: np.ndarray, bins: int) -> list[dict[str, Any]]:
    """The (N,) positions in ``bins`` equal intervals of confidence, [low, high), the last one closed. Empty ones too.

    Args:
        confidence: the small model's largest probability.
        right: whether its most probable token is what the large model writes, or the chance of it.
        overlap: the chance that a drafted token is accepted.
    """
    index = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    parts = []
    for one in range(bins):
        inside = index == one
        means = {
            name: _mean_or_none(values[inside])
            for name, values in (("confidence", confidence), ("right", right), ("alpha", overlap))
        }
        parts.append({"low": one / bins, "high": (one + 1) / bins, "positions": int(inside.sum()), **means})
    return parts


def calibration_error(parts: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error (Guo et al., ICML 2017, equation 3): the mean distance between confidence and
    being right, over bins, weighted by their positions."""
    total = sum(part["positions"] for part in parts)
    filled = [part for part in parts if part["positions"] > 0]
    return sum(part["positions"] * abs(part["confidence"] - part["right"]) for part in filled) / total


def by_position(place: np.ndarray, table: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Means over neighbouring positions of the outputs, of which there are ``place`` (N,), from 0 on."""
    size = -(-(int(place.max()) + 1) // PARTS)
    parts = []
    for first in range(0, int(place.max()) + 1, size):
        inside = (place >= first) & (place < first + size)
        means = {
            name: float(table[column][inside].mean())
            for name, column in (("alpha", "overlap"), ("plain_alpha", "plain_overlap"), ("confidence", "confidence"))
        }
        parts.append({"first": first, "last": first + size - 1, "positions": int(inside.sum()), **means})
    return parts


def _mean(rows: Sequence[Positions], name: str, seed: int) -> dict[str, float]:
    """Over all positions, with its interval."""
    sums = np.array([[sum(getattr(row, name)), len(getattr(row, name))] for row in rows])

    def ratio(drawn: np.ndarray, _: np.ndarray) -> float:
        total, positions = drawn.sum(0)
        return float(total / positions)

    return asdict(paired_bootstrap(sums, sums, ratio, seed))


def _mean_or_none(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) > 0 else None
