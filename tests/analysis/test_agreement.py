"""Acceptance, reliability and calibration error against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.analysis import agreement
from pipelines.decoding.positions import Positions


def positions(**columns: list[float]) -> Positions:
    """Zeros where nothing is given."""
    length = len(next(iter(columns.values())))
    names = ("overlap", "plain_overlap", "kept", "agrees", "confidence", "right")
    return Positions(**{name: columns.get(name, [0.0] * length) for name in names})


CONFIDENCE = np.array([0.1, 0.3, 0.45, 0.5, 0.9, 1.0])
RIGHT = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
OVERLAP = np.array([0.1, 0.2, 0.6, 0.4, 0.8, 1.0])


def test_bins_of_confidence():
    low, high = agreement.by_confidence(CONFIDENCE, RIGHT, OVERLAP, 2)
    assert (low["low"], low["high"], low["positions"]) == (0, 0.5, 3)
    assert low["confidence"] == pytest.approx((0.1 + 0.3 + 0.45) / 3)
    assert low["right"] == pytest.approx(1 / 3)
    assert low["alpha"] == pytest.approx(0.3)
    # A border belongs to the bin above it, and certainty to the last one.
    assert (high["low"], high["high"], high["positions"]) == (0.5, 1, 3)
    assert high["confidence"] == pytest.approx(0.8)
    assert high["right"] == 1


def test_an_empty_bin_has_no_mean():
    parts = agreement.by_confidence(CONFIDENCE, RIGHT, OVERLAP, 4)
    assert [part["positions"] for part in parts] == [1, 2, 1, 2]
    parts = agreement.by_confidence(np.array([0.9]), np.array([1.0]), np.array([1.0]), 2)
    assert parts[0] == {"low": 0, "high": 0.5, "positions": 0, "confidence": None, "right": None, "alpha": None}


def test_calibration_error():
    parts = agreement.by_confidence(CONFIDENCE, RIGHT, OVERLAP, 2)
    # (3 |0.85 / 3 - 1 / 3| + 3 |0.8 - 1|) / 6
    assert agreement.calibration_error(parts) == pytest.approx((0.15 + 0.6) / 6)
    lopsided = agreement.by_confidence(np.array([0.2, 0.9, 0.9, 0.9]), np.array([1.0, 1, 1, 0]), np.zeros(4), 4)
    # (1 x 0.8 + 3 |0.9 - 2 / 3|) / 4, with two empty bins
    assert agreement.calibration_error(lopsided) == pytest.approx((0.8 + 0.7) / 4)


def test_a_model_that_knows_itself_has_no_error():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0, 1, 200_000)
    right = (generator.uniform(0, 1, 200_000) < confidence).astype(float)
    assert agreement.calibration_error(agreement.by_confidence(confidence, right, right, 10)) < 0.01


def test_means_are_over_positions_and_not_over_rows():
    rows = [
        positions(overlap=[1.0], agrees=[1.0], plain_overlap=[0.5], confidence=[0.9], right=[1.0]),
        positions(
            overlap=[0.2, 0.4, 0.0],
            agrees=[0.0, 1.0, 0.0],
            plain_overlap=[0.1, 0.1, 0.1],
            confidence=[0.5, 0.5, 0.1],
            right=[0.0, 1.0, 0.0],
        ),
    ]
    found = agreement.agreement(rows, bins=2, seed=0, guesses=False)
    assert (found["examples"], found["positions"]) == (2, 4)
    assert found["alpha"]["value"] == pytest.approx(0.4)
    assert found["alpha"]["low"] == pytest.approx(0.2)
    assert found["alpha"]["high"] == pytest.approx(1.0)
    assert found["same_choice"]["value"] == pytest.approx(0.5)
    assert found["plain_alpha"]["value"] == pytest.approx(0.2)
    assert (found["confidence"], found["right"]) == (pytest.approx(0.5), pytest.approx(0.5))
    first, second, third = found["by_position"]
    assert (first["first"], first["last"], first["positions"]) == (0, 0, 2)
    assert first["alpha"] == pytest.approx(0.6)
    assert (second["positions"], second["alpha"], third["alpha"]) == (1, pytest.approx(0.4), pytest.approx(0.0))


def test_many_positions_are_grouped():
    place = np.arange(70)
    table = dict.fromkeys(("overlap", "plain_overlap", "confidence"), place / 70)
    parts = agreement.by_position(place, table)
    assert [part["positions"] for part in parts] == [3] * 23 + [1]
    assert (parts[1]["first"], parts[1]["last"]) == (3, 5)
    assert parts[1]["alpha"] == pytest.approx(4 / 70)
