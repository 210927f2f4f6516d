"""The plots of an analysis as SVG that takes its text colour from the page. Knows the schema of an analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.analysis.tables import SERIES, Content, ablated, metric_title, series, ways
from pipelines.evaluation.plots import INK, MARKERS, empty_figure, svg_text
from pipelines.evaluation.plots import SERIES as COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.6  # inches, as the other report's plots
SHARES = (0, 1, 3, 6, 10, 20, 40, 70, 100)  # of the ticks, in percent
ALONE = {"large": "*", "small": "X"}  # markers
GREY = "#8c8c8c"  # bars in the background, on dark and light alike


def by_position(content: Content) -> str:
    """Acceptance along the outputs; bars: how many texts reach that far."""
    parts = content["agreement"]["by_position"]
    figure, axes = empty_figure(WIDTH, 3.6)
    sure = "guessed" if "guessed" in content["agreement"] else "confidence"
    middles = [(part["first"] + part["last"]) / 2 + 1 for part in parts]
    most = parts[0]["positions"]
    size = parts[0]["last"] - parts[0]["first"] + 1
    axes.bar(
        middles,
        [part["positions"] / most for part in parts],
        width=0.9 * size,
        color=GREY,
        alpha=0.25,
        label="positions there are",
    )
    for index, (name, label) in enumerate((("alpha", "alpha"), ("plain_alpha", "alpha, plain"), ("confidence", sure))):
        axes.plot(middles, [part[name] for part in parts], label=label, **_style(index))
    axes.set_ylim(0, 1.02)
    return _finished(figure, axes, "position in the large model's output")


def reliability(content: Content) -> str:
    """Being right against confidence; a small model that knows itself lies on the diagonal."""
    parts = [part for part in content["agreement"]["by_confidence"] if part["positions"] > 0]
    most = max(part["positions"] for part in parts)
    figure, axes = empty_figure(WIDTH, 4.2)
    axes.bar(
        [(part["low"] + part["high"]) / 2 for part in parts],
        [part["positions"] / most for part in parts],
        width=[0.92 * (part["high"] - part["low"]) for part in parts],
        color=GREY,
        alpha=0.25,
        label="positions there are",
    )
    axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1, label="confidence = right")
    for index, (name, label) in enumerate((("right", "right"), ("alpha", "alpha"))):
        axes.plot(
            [part["confidence"] for part in parts],
            [part[name] for part in parts],
            label=label,
            **_style(index, hollow=index == 1),
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    return _finished(figure, axes, "confidence of the small model", "share")


def steps(content: Content) -> str:
    """The cost of a large step by its width, in steps of one token."""
    found = content["steps"]
    figure, axes = empty_figure(WIDTH, 3.2)
    widths = [entry["width"] for entry in found["large"]]
    costs = [entry["over_one"] for entry in found["large"]]
    axes.errorbar(widths, [one["value"] for one in costs], yerr=_error(costs), label="large", capsize=2, **_style(0))
    axes.axhline(found["c"]["value"], linestyle="--", color=COLOURS[1], label="small, one token (c)")
    axes.axhline(1, linestyle=":", color=INK, linewidth=1, label="what the formula takes a large step to cost")
    axes.set_ylim(bottom=0)
    return _finished(figure, axes, "tokens in the step", "large steps of one token")


def draft_lengths(content: Content) -> str:
    """Speedup of lossless decoding by draft length, predicted and measured."""
    points = content["draft_lengths"]["points"]
    lengths = [point["draft_length"] for point in points]
    figure, axes = empty_figure(WIDTH, 4.4)
    for index, way in enumerate(ways(content)):
        speedups = [point["predicted_speedup"][way] for point in points]
        axes.plot(lengths, speedups, label=way, linestyle="--", **_style(index, hollow=True))
    measured = [point["latency"]["decode_only"]["speedup"] for point in points]
    axes.errorbar(
        lengths,
        [one["value"] for one in measured],
        yerr=_error(measured),
        label="measured",
        color=INK,
        marker="*",
        markersize=9,
        linewidth=1.4,
        capsize=2,
    )
    axes.axhline(1, linestyle=":", color=INK, linewidth=1)
    axes.set_ylim(bottom=0)
    return _finished(figure, axes, "draft length", "speedup of decoding, large model alone = 1")


def mixing(content: Content) -> str:
    """Quality of the oracle against the share of tokens that the large model writes."""
    entries = series(content, "mixing")
    figure, axes = empty_figure(WIDTH, 4)
    shares = [100 * entry["rates"]["large_share"] for entry in entries]
    scores = [entry["quality"]["score"] for entry in entries]
    axes.plot(shares, scores, label="oracle; beside a point: its threshold", **_style(0))
    for entry, share, score in zip(entries, shares, scores, strict=True):
        axes.annotate(
            f"{entry['setting']:g}", (share, score), textcoords="offset points", xytext=(5, -11), fontsize=8, color=INK
        )
    _each_alone(axes, content, {"small": 0, "large": 100})
    # Little of the large model is where much happens.
    axes.set_xscale("function", functions=(np.sqrt, np.square))
    axes.set_xticks(SHARES, [f"{share}" for share in SHARES])
    axes.set_xlim(0, 104)
    return _finished(figure, axes, "% of the tokens that the large model wrote (root scale)", metric_title(content))


def ablation(content: Content) -> str:
    """Quality against time: BigLittle whole, and without either half."""
    figure, axes = empty_figure(WIDTH, 4.4)
    for index, name in enumerate(ablated(content)):
        entries = series(content, name)
        times = [1 / entry["latency"]["speedup"]["value"] for entry in entries]
        scores = [entry["quality"]["score"] for entry in entries]
        axes.plot(times, scores, label=SERIES[name], **_style(index))
        for entry, time, score in zip(entries, times, scores, strict=True):
            axes.annotate(
                f"{entry['setting']:g}", (time, score), textcoords="offset points", xytext=(4, 5), fontsize=7, color=INK
            )
    alone = content["baselines"].items()
    _each_alone(axes, content, {name: 1 / entry["latency"]["speedup"]["value"] for name, entry in alone})
    axes.margins(x=0.08, y=0.12)
    x = "time per example, large model alone = 1  (further left is faster)"
    return _finished(figure, axes, x, metric_title(content))


def _style(index: int, hollow: bool = False) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    face = {"markerfacecolor": "none"} if hollow else {}
    return {"color": colour, "marker": MARKERS[index % len(MARKERS)], "linewidth": 1.4, "markersize": 5.5, **face}


def _error(intervals: list[dict[str, float]]) -> list[list[float]]:
    """Distances from each point to the ends of its interval."""
    below = [max(0.0, one["value"] - one["low"]) for one in intervals]
    return [below, [max(0.0, one["high"] - one["value"]) for one in intervals]]


def _each_alone(axes: Axes, content: Content, places: dict[str, float]) -> None:
    """Marks the quality of each model alone at its place on the other axis, and the large one's all along."""
    for name, place in places.items():
        baseline, marker = content["baselines"][name], ALONE[name]
        axes.plot([place], [baseline["quality"]["score"]], marker, color=INK, markersize=10, label=baseline["label"])
    axes.axhline(content["baselines"]["large"]["quality"]["score"], color=INK, linewidth=0.7, linestyle=":")


def _finished(figure: Figure, axes: Axes, x: str, y: str = "") -> str:
    """The picture with the names of its axes and a legend."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return svg_text(figure)
