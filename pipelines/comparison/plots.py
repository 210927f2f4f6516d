"""The quality-latency plane of a comparison as SVG. Knows its schema and matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.comparison.systems import spoken
from pipelines.comparison.tables import BASELINES, heading, systems
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


def plane(content: dict[str, Any]) -> str:
    """An ``<svg>`` element: a picture for each temperature, side by side, one line a system. Its ink is the page's."""
    panels = content["panels"]
    figure, pictures = empty_figures(5.2 * len(panels) + 0.4, 6.4, len(panels))
    for axes, panel in zip(pictures, panels, strict=True):
        _draw(axes, panel)
        axes.set_title(heading(panel), color=INK, fontsize=10)
        axes.set_xlabel("time per example, large model alone = 1  (left is faster)")
    pictures[0].set_ylabel(METRIC_TITLES[HEADLINE[content["task"]["metric"]]])
    handles = {}
    for axes in pictures:
        shown, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, shown, strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK
    )
    return svg_text(figure)


def standalone(picture: str) -> str:
    """An SVG file that is readable on any page: dark ink on white paper."""
    ink, paper = PAPER
    head, rest = picture.split(">", 1)
    page = f'<rect width="100%" height="100%" fill="{paper}"/>'
    return f'{head} style="color: {ink}">{page}{rest}'.replace("currentColor", ink)


def _draw(axes: Axes, panel: dict[str, Any]) -> None:
    for entry in panel["methods"]:
        if entry["method"] in BASELINES:
            _baseline(axes, entry)
    for index, system in enumerate(systems(panel)):
        members = [entry for entry in panel["methods"] if entry["system"] == system]
        points = sorted((1 / entry["latency"]["speedup"]["value"], entry["quality"]["score"]) for entry in members)
        axes.plot(
            [time for time, _ in points],
            [quality for _, quality in points],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=LINES[index // len(COLOURS) % len(LINES)],
            markersize=5,
            linewidth=1,
            label=spoken(system),
        )
    axes.margins(x=0.06, y=0.06)


def _baseline(axes: Axes, entry: dict[str, Any]) -> None:
    time, quality = 1 / entry["latency"]["speedup"]["value"], entry["quality"]["score"]
    marker, size = ("*", 13) if entry["method"] == "large" else ("X", 9)
    axes.plot([time], [quality], marker, color=INK, markersize=size, label=entry["label"], linestyle="none")
    if entry["method"] == "large":
        axes.axhline(quality, color=INK, linewidth=0.7, linestyle=":")
