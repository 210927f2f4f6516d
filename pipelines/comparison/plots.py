"""The quality-latency plane of a comparison as SVG. Knows its schema and matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.comparison.systems import spoken
from pipelines.comparison.tables import BASELINES, equal_in_law, heading, large_score, systems
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.plots import INK, empty_figures, svg_text
from pipelines.evaluation.table import METRIC_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Two neighbours in the legend differ in colour, and what shares a colour differs in marker and line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p", "d")  # no multiple of the colours
LINES = ("-", "--", ":")
PAPER = ("#1b1f24", "#ffffff")
LINE = 0.02  # height of a name, as a share of the picture's


def plane(content: dict[str, Any]) -> str:
    """An ``<svg>`` element: a picture for each temperature, side by side, one line a system. Its ink is the page's."""
    panels = content["panels"]
    figure, pictures = empty_figures(7.6 * len(panels) + 0.4, 8.4, len(panels))
    names = list(dict.fromkeys(name for panel in panels for same in systems(panel) for name in same))
    for axes, panel in zip(pictures, panels, strict=True):
        _draw(axes, panel, names)
        axes.set_title(heading(panel), color=INK, fontsize=10)
        axes.set_xlabel("time per example, large model alone = 1  (left is faster)")
    pictures[0].set_ylabel(METRIC_TITLES[HEADLINE[content["task"]["metric"]]])
    handles = {}
    for axes in pictures:
        shown, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, shown, strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=8, labelcolor=INK
    )
    return svg_text(figure)


def standalone(picture: str) -> str:
    """An SVG file that is readable on any page: dark ink on white paper."""
    ink, paper = PAPER
    head, rest = picture.split(">", 1)
    page = f'<rect width="100%" height="100%" fill="{paper}"/>'
    return f'{head} style="color: {ink}">{page}{rest}'.replace("currentColor", ink)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the (time, quality) that no other one beats in both, fastest first."""
    found: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not found or points[place][1] > points[found[-1]][1]:
            found.append(place)
    return found


def _draw(axes: Axes, panel: dict[str, Any], names: Sequence[str]) -> None:
    """``names``: of all systems of the picture; its place there is a system's colour, marker and line."""
    large = large_score(panel)
    alone = [entry for entry in panel["methods"] if entry["method"] in BASELINES]
    told = [(_point(entry, large, panel), entry["label"]) for entry in alone]
    for same, members in systems(panel).items():
        index = names.index(same[0])
        points = sorted((*_point(entry, large, panel), entry["setting"]) for entry in members)
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            [time for time, _, _ in points],
            [quality for _, quality, _ in points],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            linestyle=LINES[index // len(COLOURS) % len(LINES)],
            markersize=5,
            linewidth=1,
            label=" = ".join(map(spoken, same)),
        )
        for time, quality, setting in points:
            place = {"xytext": (3, -6), "textcoords": "offset points"}
            axes.annotate(setting, (time, quality), color=colour, fontsize=5.5, **place)
            told.append(((time, quality), f"{spoken(same[0])} {setting}".strip()))
    for entry in alone:
        _baseline(axes, entry)
    axes.margins(x=0.06, y=0.06)
    axes.set_xlim(left=0)
    _front(axes, told)


def _point(entry: dict[str, Any], large: float, panel: dict[str, Any]) -> tuple[float, float]:
    """Time and quality; what is equal in law to the large model has its quality."""
    quality = large if equal_in_law(entry, panel) else entry["quality"]["score"]
    return 1 / entry["latency"]["speedup"]["value"], quality


def _front(axes: Axes, told: Sequence[tuple[tuple[float, float], str]]) -> None:
    """What nothing beats in both time and quality, by name."""
    best = [told[place] for place in front([point for point, _ in told])]
    axes.plot(
        [time for (time, _), _ in best],
        [quality for (_, quality), _ in best],
        drawstyle="steps-post",
        color=INK,
        alpha=0.18,
        linewidth=5,
        zorder=0,
        label="nothing is better and faster",
    )
    # Up and to the left of it there is nothing else: names stand there, each above the one before.
    low, high = axes.get_ylim()
    height = -math.inf
    for (time, quality), name in best:
        height = max(quality, height + LINE * (high - low))
        style = {"color": INK, "fontsize": 7, "ha": "right", "va": "bottom"}
        line = {"arrowstyle": "-", "color": INK, "alpha": 0.4, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(name, (time, quality), xytext=(time - LINE, height), arrowprops=line, **style)
    axes.set_ylim(low, max(high, height + 3 * LINE * (high - low)))


def _baseline(axes: Axes, entry: dict[str, Any]) -> None:
    time, quality = 1 / entry["latency"]["speedup"]["value"], entry["quality"]["score"]
    marker, size = ("*", 13) if entry["method"] == "large" else ("X", 9)
    axes.plot([time], [quality], marker, color=INK, markersize=size, label=entry["label"], linestyle="none")
    if entry["method"] == "large":
        axes.axhline(quality, color=INK, linewidth=0.7, linestyle=":")
