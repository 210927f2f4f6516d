"""The comparison for people: lines, a table and a verdict.

Knows figures and counts; knows nothing about models or how the figures came about.
"""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from pipelines.alignment.comparison import Figure

# Acceptance alone can stand still while drafts get longer: a surer small model drafts further.
VERDICTS = {"overlap": "alpha", "acceptance": "acceptance", "mean_accepted_length": "mean accepted length"}


def described(summary: dict[str, int], longest: int) -> str:
    """One line on outputs of the large model; ``longest`` is the most tokens that one may have."""
    mean = summary["tokens"] / summary["outputs"]
    line = f"{summary['outputs']:,} outputs of {mean:.1f} tokens on average"
    if summary["empty"]:
        line += f"; {summary['empty']:,} of them are empty and stay, since the small model is to imitate that too"
    if summary["cut"]:
        line += f"; {summary['cut']:,} were cut at {longest} tokens (align.generation_max_length)"
    return line


def table(figures: dict[str, Figure]) -> Table:
    """One row per figure: before, after, and the difference with its 95 % interval."""
    result = Table()
    result.add_column("")
    for heading in ("before", "after", "change", "95 % interval"):
        result.add_column(heading, justify="right", no_wrap=True)
    for figure in figures.values():
        change = figure.difference
        interval = f"{_number(change.low, '+')} to {_number(change.high, '+')}"
        result.add_row(
            figure.label, _number(figure.before), _number(figure.after), _number(change.value, "+"), interval
        )
    return result


def verdict(figure: Figure, name: str) -> str:
    """One line: rose, fell, or not to be told apart from chance on these rows."""
    low, high = figure.difference.low, figure.difference.high
    if math.isnan(low) or math.isnan(high):
        return f"{name} is unknown: nothing was drafted in some of the resampled rows"
    if low > 0:
        return f"{name} rose"
    if high < 0:
        return f"{name} fell"
    return (
        f"{name} did not change clearly: the interval holds 0; compare more rows (align.report_limit) or train longer"
    )


def show(figures: dict[str, Figure], title: str) -> None:
    """Print a title, the table, and the verdicts on what alignment is for."""
    # Wide enough for the table where the output is no terminal.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(f"\n{title}", markup=False)
    console.print(table(figures))
    for name, words in VERDICTS.items():
        console.print(verdict(figures[name], words), markup=False)


def _number(value: float, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    digits = 2 if abs(value) >= 10 else 3
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # adding 0 turns -0 into 0
