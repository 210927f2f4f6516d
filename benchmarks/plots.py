"""One picture per result, as SVG. Knows the schema and matplotlib, which it can do without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#b8860b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def draw(content: dict[str, Any], path: Path) -> Path | None:
    """Draw a result and say where; None without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    figure = {"steps": _steps, "pair": _pair, "inflate": _pair, "batch": _batch}[content["mode"]](content)
    # The salt makes equal plots equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bild"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _steps(content: dict[str, Any]) -> Figure:
    """Milliseconds of a step against its width, one panel a shape, with the limit of each engine's bytes."""
    shapes = content["shapes"]
    columns = min(2, len(shapes))
    figure = _figure(4.6 * columns + 0.6, 3.4 * -(-len(shapes) // columns))
    panels = figure.subplots(-(-len(shapes) // columns), columns, squeeze=False).flatten()
    for panel, (name, shape) in zip(panels, shapes.items(), strict=False):
        for engine, colour, marker in zip(shape["engines"], COLOURS, MARKERS, strict=False):
            points = [step for step in shape["steps"] if step["engine"] == engine["engine"]]
            widths, times = [point["width"] for point in points], [point["ms"] for point in points]
            panel.plot(widths, times, color=colour, marker=marker, markersize=4, label=engine["engine"])
            panel.axhline(engine["limit_ms"], color=colour, linewidth=0.8, linestyle=":")
        panel.set_title(name, fontsize=10, loc="left")
        panel.set_ylim(bottom=0)
        panel.set_xlabel("tokens in one step", fontsize=9)
        panel.set_ylabel("ms", fontsize=9)
        _plain(panel)
    for panel in panels[len(shapes) :]:
        panel.remove()
    handles, names = panels[0].get_legend_handles_labels()
    title = "dotted: what memory allows for one token"
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=8,
        title=title,
        title_fontsize=8,
    )
    return figure


def _pair(content: dict[str, Any]) -> Figure:
    """Speedup over transformers generate, decoding alone and end to end, with intervals."""
    methods = content["methods"][::-1]
    figure = _figure(7.6, 1.1 + 0.42 * len(methods))
    axes = figure.subplots()
    for offset, part, colour, label in (
        (0.19, "decode_only", COLOURS[0], "decoding only"),
        (-0.19, "end_to_end", COLOURS[5], "both encoders included"),
    ):
        factors = [method[part]["speedup"] for method in methods]
        values = [one["value"] for one in factors]
        below = [max(0.0, one["value"] - one["low"]) for one in factors]
        above = [max(0.0, one["high"] - one["value"]) for one in factors]
        places = [place + offset for place in range(len(methods))]
        whiskers = {"elinewidth": 0.9, "capsize": 2, "ecolor": "#333333"}
        axes.barh(places, values, height=0.36, color=colour, label=label, xerr=[below, above], error_kw=whiskers)
    axes.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(methods)), [_with_length(method) for method in methods])
    axes.set_xlabel(f"times faster than {content['baseline']}, batch 1", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.margins(y=0.01)
    _plain(axes)
    return figure


def _batch(content: dict[str, Any]) -> Figure:
    """Tokens a second against batch size, a line per method."""
    figure = _figure(7.2, 4.4)
    axes = figure.subplots()
    names = list(dict.fromkeys(point["method"] for point in content["points"]))
    for name, colour, marker in zip(names, COLOURS * 3, MARKERS * 3, strict=False):
        points = [point for point in content["points"] if point["method"] == name]
        sizes, speeds = [point["batch_size"] for point in points], [point["tokens_per_second"] for point in points]
        axes.plot(sizes, speeds, color=colour, marker=marker, markersize=5, label=name)
    sizes = sorted({point["batch_size"] for point in content["points"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size", fontsize=9)
    axes.set_ylabel("tokens/s, encoders included", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def _with_length(method: dict[str, Any]) -> str:
    """A method's name, and how many tokens each large step gave where a small model helped."""
    length = method.get("mean_accepted_length")
    helped = length is not None and method["counts"]["small_steps"] > 0
    return f"{method['method']}\n{length:.1f} tokens per large step" if helped else method["method"]


def _figure(width: float, height: float) -> Figure:
    """An empty figure in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
