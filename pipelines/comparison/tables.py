"""A comparison as rows of short strings: all points, and the fastest of each system within a loss of quality."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from pipelines.cli import counted
from pipelines.comparison.systems import spoken
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.table import METRIC_TITLES, NOTHING, Column, main_columns, number, print_table

LOSSES = (1.0, 2.0, 4.0)  # points of quality that a setting may lose against the large model alone
BASELINES = ("large", "small")


def print_all(content: dict[str, Any]) -> None:
    """Print the tables of every panel."""
    metric = content["task"]["metric"]
    where = f"{content['task']['name']}, {content['task']['split']}, {counted(content['task']['examples'], 'example')}"
    for panel in content["panels"]:
        print_table(f"{where}, {heading(panel)}", main_columns(metric), panel["methods"], [])
        title = f"the fastest setting of each system that surely loses no more, {heading(panel)}"
        print_table(title, fastest_columns(metric), fastest_rows(panel), [])


def fastest_columns(metric: str) -> list[Column]:
    """How to read ``fastest_rows``."""
    title = METRIC_TITLES[HEADLINE[metric]]
    meaning = "here and to the right: speedup over the large model alone, quality, in brackets what varies in a system"
    losses = [
        Column(f"at most {loss:g} {title} lost", meaning if place == 1 else "", itemgetter(place))
        for place, loss in enumerate(LOSSES, start=1)
    ]
    last = Column("fastest of all", "whatever it loses", itemgetter(len(LOSSES) + 1))
    return [Column("system", "who decodes", itemgetter(0)), *losses, last]


def fastest_rows(panel: dict[str, Any]) -> list[list[str]]:
    """One row a system: its fastest point within each loss, as speedup, quality and setting.

    Points are chosen on the rows that they are reported on, from many: so it is not the measured loss that decides, but
    the lower end of its 95 % interval.
    """
    rows = []
    for system in systems(panel):
        members = [entry for entry in panel["methods"] if entry["system"] == system]
        fine = [[entry for entry in members if _least(entry) >= -loss] for loss in LOSSES]
        rows.append([spoken(system), *(_fastest(entries) for entries in [*fine, members])])
    return rows


def systems(panel: dict[str, Any]) -> list[str]:
    """Names in their order, the baselines left out."""
    return list(dict.fromkeys(entry["system"] for entry in panel["methods"] if entry["system"] not in BASELINES))


def what_they_do(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Systems, together where the same policy is behind them, and what it does. Older results do not tell."""
    found: dict[str, dict[str, None]] = {}
    for entry in (entry for panel in content["panels"] for entry in panel["methods"] if "summary" in entry):
        if entry["system"] not in BASELINES:
            found.setdefault(entry["summary"], {})[spoken(entry["system"])] = None
    return [(", ".join(names), summary) for summary, names in found.items()]


def heading(panel: dict[str, Any]) -> str:
    """What a panel is of."""
    return "greedy" if panel["temperature"] == 0 else f"sampled at temperature {panel['temperature']:g}"


def _least(entry: dict[str, Any]) -> float:
    """The quality that it may be off the large model's, at worst."""
    low: float = entry["quality"]["difference_to_large"]["low"]
    return low


def _fastest(entries: Sequence[dict[str, Any]]) -> str:
    if not entries:
        return NOTHING
    best = max(entries, key=lambda entry: entry["latency"]["speedup"]["value"])
    setting = f" ({best['setting']})" if best["setting"] else ""
    return f"{best['latency']['speedup']['value']:.2f}x, {number(best['quality']['score'], 2)}{setting}"
