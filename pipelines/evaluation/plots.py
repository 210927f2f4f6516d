"""The report's plots as SVG that takes its text colour from the page, so that they are readable on dark and light.

Knows the schema of results and matplotlib; knows nothing about HTML beyond ``currentColor``.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.measures import LARGE_REASONS
from pipelines.evaluation.results import Result
from pipelines.evaluation.table import METRIC_TITLES, lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers, and dark enough for paper.
COLOURS = {
    "draft": "#56b4e9",
    "fallback": "#e69f00",
    "rollback": "#d55e00",
    "bonus": "#009e73",
    "large": "#999999",
    "discarded": "#cc79a7",
}
REASONS = {
    "draft": "drafted, accepted",
    "fallback": "large model, where the small one was unsure (fallback)",
    "rollback": "large model, in place of a rejected draft (rollback)",
    "bonus": "large model, after a draft that stands whole",
    "large": "large model, without a draft",
    "discarded": "drafted, thrown away",
}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Stands for the page's text colour until the SVG is written; used for nothing else.
INK = "#010203"


def quality_latency(results: Sequence[Result]) -> str:
    """Quality against time per example relative to the large model alone, one point a policy, with intervals."""
    figure, axes = empty_figure(7.6, 4.4)
    metric = results[0].content["task"]["metric"]
    shown = lines(results)
    for line in shown:
        if not line.is_policy:
            _baseline(axes, line.entry)
    policies = [line for line in shown if line.is_policy]
    varying = varying_fields([line.result for line in policies])
    for index, (name, members) in enumerate(_series(policies, varying).items()):
        points = [(_time(line.entry), line.entry["quality"]["score"], line) for line in members]
        points.sort(key=lambda point: point[:2])
        style = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}
        axes.errorbar(
            [time for time, _, _ in points],
            [quality for _, quality, _ in points],
            xerr=_error([line.entry for _, _, line in points]),
            label=name,
            linewidth=1.2,
            markersize=6,
            elinewidth=0.8,
            capsize=2,
            **style,
        )
        for time, quality, line in points:
            text = str(line.result.content["policy"][varying[0]]) if varying else ""
            axes.annotate(text, (time, quality), textcoords="offset points", xytext=(5, 6), fontsize=8, color=INK)
    axes.set_xlabel("time per example, large model alone = 1  (further left is faster)")
    axes.set_ylabel(METRIC_TITLES[HEADLINE[metric]])
    axes.margins(x=0.08, y=0.16)
    title = f"the number beside a point is {varying[0]}" if varying else None
    legend = axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=8, labelcolor=INK, loc="best")
    legend.get_title().set_color(INK)
    return svg_text(figure)


def latency_distribution(milliseconds: dict[str, Sequence[float]]) -> str:
    """Time per example by method: the middle half as a box, the middle four fifths as a line, every example a dot."""
    figure, axes = empty_figure(7.6, 0.9 + 0.62 * len(milliseconds))
    names = list(milliseconds)[::-1]
    values = [milliseconds[name] for name in names]
    for height, one in enumerate(values, start=1):
        # The golden ratio spreads neighbours apart without randomness.
        spread = [height + 0.3 * ((index * 0.618) % 1 - 0.5) for index in range(len(one))]
        axes.plot(one, spread, ".", color=SERIES[0], markersize=4, alpha=0.6)
    stroke = {"color": INK, "linewidth": 1.1}
    axes.boxplot(
        values,
        orientation="horizontal",
        whis=(10, 90),
        widths=0.5,
        showfliers=False,
        tick_labels=names,
        boxprops=stroke,
        whiskerprops=stroke,
        capprops=stroke,
        medianprops={"color": INK, "linewidth": 2.4},
    )
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds per example, one at a time")
    return svg_text(figure)


def who_wrote(methods: Sequence[dict[str, Any]]) -> str:
    """Tokens by writer as a share of the written ones, and how many drafted tokens were thrown away on top."""
    figure, axes = empty_figure(7.6, 1.3 + 0.5 * len(methods))
    shown = list(methods)[::-1]
    for height, entry in enumerate(shown):
        by, left = entry["written_by"], 0.0
        written = sum(by[reason] for reason in ("draft", *LARGE_REASONS))
        for reason in ("draft", *LARGE_REASONS, "discarded"):
            share = 100 * by[reason] / max(written, 1)
            if share == 0:
                continue
            hatched = {"hatch": "////", "fill": False} if reason == "discarded" else {}
            bar = axes.barh(height, share, left=left, height=0.62, color=COLOURS[reason], linewidth=0, **hatched)
            if hatched:
                bar[0].set(edgecolor=COLOURS[reason], linewidth=0.8)
            if share >= 6:
                colour = INK if hatched else "#111111"
                axes.text(
                    left + share / 2, height, f"{share:.0f} %", ha="center", va="center", fontsize=8, color=colour
                )
            left += share
    axes.axvline(100, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(shown)), [entry["label"] for entry in shown])
    axes.set_xlabel("% of the written tokens;\nto the right of 100: drafted and thrown away")
    axes.set_xlim(left=0)
    return svg_text(figure)


def varying_fields(results: Sequence[Result]) -> list[str]:
    """The fields of the policy that are not the same in all results, numbers first, in their order."""
    policies = [result.content["policy"] for result in results]
    if not policies:
        return []
    names = list(dict.fromkeys(name for policy in policies for name in policy))
    return [name for name in names if len({str(policy.get(name)) for policy in policies}) > 1]


def _series(policies: Sequence[Any], varying: Sequence[str]) -> dict[str, list[Any]]:
    """Points that belong together: the first varying field runs along a line, every other one tells lines apart."""
    found: dict[str, list[Any]] = {}
    for line in policies:
        policy = line.result.content["policy"]
        rest = [f"{name}={policy.get(name)}" for name in varying[1:]]
        label = ", ".join(rest) if rest else policy["name"] if varying else line.entry["label"]
        found.setdefault(label, []).append(line)
    return found


def _baseline(axes: Axes, entry: dict[str, Any]) -> None:
    time, quality = _time(entry), entry["quality"]["score"]
    marker = "*" if entry["method"] == "large" else "X"
    axes.plot([time], [quality], marker, color=INK, markersize=11 if marker == "*" else 8, label=entry["label"])
    if entry["method"] == "large":
        axes.axhline(quality, color=INK, linewidth=0.7, linestyle=":")


def _time(entry: dict[str, Any]) -> float:
    return 1 / entry["latency"]["speedup"]["value"]


def _error(entries: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Distances from each point to the ends of its interval; a fast end of the speedup is a short time."""
    intervals = [entry["latency"]["speedup"] for entry in entries]
    below = [max(0.0, 1 / one["value"] - 1 / one["high"]) for one in intervals]
    above = [max(0.0, 1 / one["low"] - 1 / one["value"]) for one in intervals]
    return [below, above]


def empty_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot in inches, without frame or background."""
    figure, (axes,) = empty_figures(width, height, 1)
    return figure, axes


def empty_figures(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Empty plots side by side, all of them within the given inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    plots = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in plots:
        _dress(axes)
    return figure, plots


def _dress(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def svg_text(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, text kept as text."""
    import matplotlib as mpl

    buffer = io.StringIO()
    # The salt makes equal plots equal text; text as text stays searchable and takes the page's font.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bild", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids must not clash between the plots of one page.
    prefix = f"p{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return svg.replace(INK, "currentColor")
