"""Where the points of an analysis's plots lie."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.analysis import plots


@pytest.fixture(autouse=True)
def figures(monkeypatch) -> None:
    """Figures in place of their text."""
    monkeypatch.setattr(plots, "svg_text", lambda figure: figure)


def system(series: str, setting: float, score: float, *, speedup: float = 1.0, share: float = 0.0) -> dict:
    return {
        "series": series,
        "setting": setting,
        "quality": {"score": score},
        "latency": {"speedup": {"value": speedup}},
        "rates": {"large_share": share},
        "label": series,
    }


BASELINES = {"large": system("large", 0, 30), "small": system("small", 0, 20, speedup=4)}


def lines(figure) -> dict[str, list[list[float]]]:
    """Points (x, y) by label."""
    [axes] = figure.axes
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def ends(figure) -> list[list[list[float]]]:
    """The two ends of the interval of each point."""
    [axes] = figure.axes
    [(_, _, (bars,))] = axes.containers
    return [segment.tolist() for segment in bars.get_segments()]


def content(*systems: dict) -> dict:
    return {"task": {"metric": "bleu"}, "baselines": BASELINES, "systems": systems}


def test_mixing_has_the_share_in_percent_across():
    """Between the small model at 0 and the large one at 100, in the order of the thresholds."""
    figure = plots.mixing(content(system("mixing", 0.5, 24, share=0.3), system("mixing", 0.1, 26, share=0.6)))
    drawn = lines(figure)
    assert drawn["oracle; beside a point: its threshold"] == [[60, 26], [30, 24]]
    assert (drawn["small"], drawn["large"]) == ([[0, 20]], [[100, 30]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.1", "0.5"]


def test_ablation_has_time_across():
    drawn = lines(
        plots.ablation(content(system("both", 0.2, 28, speedup=2), system("no_fallback", 3, 27, speedup=0.5)))
    )
    assert drawn["fallback and rollback"] == [[0.5, 28]]
    assert drawn["without fallback"] == [[2, 27]]
    assert "without rollback" not in drawn
    assert (drawn["small"], drawn["large"]) == ([[0.25, 20]], [[1, 30]])


def test_ablation_of_what_only_drafts_is_beside_the_large_model_alone():
    alone = {"baselines": {"large": BASELINES["large"]}}
    drawn = lines(plots.ablation(content(system("both", 0.2, 28, speedup=2)) | alone))
    assert drawn["fallback and rollback"] == [[0.5, 28]]
    assert drawn["large"] == [[1, 30]]
    assert "small" not in drawn


def test_steps_are_told_in_steps_of_one_token():
    large = [
        {"width": 1, "over_one": {"value": 1.0, "low": 1.0, "high": 1.0}},
        {"width": 4, "over_one": {"value": 1.5, "low": 1.25, "high": 2.0}},
    ]
    figure = plots.steps({"steps": {"large": large, "c": {"value": 0.125}}})
    drawn = lines(figure)
    assert figure.axes[0].containers[0][0].get_xydata().tolist() == [[1, 1], [4, 1.5]]
    assert ends(figure) == [[[1, 1], [1, 1]], [[4, 1.25], [4, 2]]]
    assert [y for _, y in drawn["small, one token (c)"]] == [0.125] * 2


def test_speedups_are_the_decoders_alone():
    ways = {"formula": 1.5, "positions": 1.4, "widths": 1.3, "loop": 1.2}
    whole, decoder = ({"value": value, "low": value - 0.125, "high": value + 0.25} for value in (9.0, 1.125))
    latency = {"speedup": whole, "decode_only": {"speedup": decoder}}
    points = [{"draft_length": 3, "predicted_speedup": ways, "latency": latency}]
    figure = plots.draft_lengths({"draft_lengths": {"points": points}})
    drawn = lines(figure)
    assert {name: drawn[name] for name in ways} == {name: [[3, value]] for name, value in ways.items()}
    assert figure.axes[0].containers[0][0].get_xydata().tolist() == [[3, 1.125]]
    assert ends(figure) == [[[3, 1.0], [3, 1.375]]]


def test_reliability_is_being_right_against_confidence():
    part = {"low": 0.5, "high": 0.75, "positions": 8, "confidence": 0.625, "right": 0.25, "alpha": 0.5}
    rare = {**part, "low": 0.75, "high": 1.0, "positions": 2, "confidence": 0.9, "right": 1.0}
    none = {**part, "positions": 0, "confidence": np.nan}
    figure = plots.reliability({"agreement": {"by_confidence": [none, part, rare]}})
    drawn = lines(figure)
    assert (drawn["right"], drawn["alpha"]) == ([[0.625, 0.25], [0.9, 1.0]], [[0.625, 0.5], [0.9, 0.5]])
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 0.25]
    assert [bar.get_x() + bar.get_width() / 2 for bar in figure.axes[0].patches] == pytest.approx([0.625, 0.875])
