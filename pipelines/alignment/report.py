"""The comparison for people: lines, a table and a verdict.

Knows figures and counts; knows nothing about models or how the figures came about.
"""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from pipelines.alignment.comparison import Figure
from pipelines.cli import counted

# Acceptance alone can stand still while drafts get longer: a surer small model drafts further.
VERDICTS = {"overlap": "alpha", "acceptance": "acceptance", "mean_accepted_length": "mean accepted length"}

POINTS = ("quality", "policy_quality")  # scores out of a hundred


def described(summary: dict[str, int], longest: int) -> str:
    """One line on outputs of the large model; ``longest`` is the most tokens that one may have."""
    mean = summary["tokens"] / summary["outputs"]
    line = f"{counted(summary['outputs'], 'output')} of {mean:.1f} tokens on average"
    if summary["empty"]:
        line += f"; empty: {summary['empty']:,}, kept, since the small model is to imitate that too"
    if summary["cut"]:
        line += f"; cut at {longest} tokens (align.generation_max_length): {summary['cut']:,}"
    return line


def table(figures: dict[str, Figure]) -> Table:
    """One row per figure: before, after, and the difference with its 95 % interval."""
    result = Table()
    result.add_column("")
    for heading in ("before", "after", "change", "95 % interval"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name, figure in figures.items():
        digits = 2 if name in POINTS else 3
        change = figure.difference
        result.add_row(
            figure.label,
            _number(figure.before, digits),
            _number(figure.after, digits),
            _number(change.value, digits, "+"),
            f"{_number(change.low, digits, '+')} to {_number(change.high, digits, '+')}",
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
    return f"{name} did not change clearly: the interval holds 0"


def show(figures: dict[str, Figure], title: str) -> None:
    """Print a title, the table, and the verdicts on what alignment is for."""
    # Wide enough for the table where the output is no terminal.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(f"\n{title}", markup=False)
    console.print(table(figures))
    for name, words in VERDICTS.items():
        console.print(verdict(figures[name], words), markup=False)
    if any(figures[name].difference.low <= 0 <= figures[name].difference.high for name in VERDICTS):
        console.print("for a clearer answer compare more rows (align.report_limit) or train longer", markup=False)


def _number(value: float, digits: int, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # adding 0 turns -0 into 0
