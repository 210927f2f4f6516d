"""A comparison as rows of short strings: all points, and of each system the fastest within a loss of quality and the
best within a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from pipelines.cli import counted
from pipelines.comparison.systems import spoken
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.table import METRIC_TITLES, NOTHING, Column, main_columns, number, print_table

LOSSES = (1.0, 2.0)  # points of quality that a setting may lose against the large model alone
BASELINES = ("large", "small")
IN_LAW = "equal in law"
BEST, ALIKE = "▲", "≈"
MARKS = (
    f"{BEST} the best of all systems at this speed; {ALIKE} not told apart from it (95 % interval of the difference)"
)


def print_all(content: dict[str, Any]) -> None:
    """Print the tables of every panel."""
    metric = content["task"]["metric"]
    where = f"{content['task']['name']}, {content['task']['split']}, {counted(content['task']['examples'], 'example')}"
    for panel in content["panels"]:
        print_table(f"{where}, {heading(panel)}", all_columns(metric, panel), panel["methods"], [])
        title = (
            f"the fastest setting of each system that surely loses no more, and its best at a speed, {heading(panel)}"
        )
        print_table(title, system_columns(metric, panel), system_rows(panel), [])
    print(MARKS)


def all_columns(metric: str, panel: dict[str, Any]) -> list[Column]:
    """How to read a panel's methods."""
    title = METRIC_TITLES[HEADLINE[metric]]
    meaning = "points of quality beside the large model alone, with the 95 % interval"
    return [*main_columns(metric), Column(f"{title} off large", meaning, partial(_off_large, panel=panel))]


def system_columns(metric: str, panel: dict[str, Any]) -> list[Column]:
    """How to read ``system_rows``."""
    title = METRIC_TITLES[HEADLINE[metric]]
    chosen = "the fastest setting: speedup over the large model alone, quality, in brackets what varies in a system"
    losses = [(f"at most {loss:g} {title} lost", "" if place else chosen) for place, loss in enumerate(LOSSES)]
    best = f"the best setting of those that are as fast; {MARKS}"
    levels = [level["speedup"] for level in _levels(panel)]
    speeds = [(f"at least {speedup:g}x", "" if place else best) for place, speedup in enumerate(levels)]
    titles = [("system", "who decodes; = joins those that wrote the same in every row"), *losses, *speeds]
    return [Column(*words, itemgetter(place)) for place, words in enumerate(titles)]


def system_rows(panel: dict[str, Any]) -> list[list[str]]:
    """One row a system: its fastest point within each loss, as speedup, quality and setting, and its best point of each
    speed.

    Points are chosen on the rows that they are reported on, from many: so it is not the measured loss that decides, but
    the lower end of its 95 % interval.
    """
    rows = []
    for names, members in systems(panel).items():
        fastest = [_fastest([one for one in members if _least(one) >= -loss], panel) for loss in LOSSES]
        rows.append(
            [" = ".join(map(spoken, names)), *fastest, *(_best(level, members, panel) for level in _levels(panel))]
        )
    return rows


def systems(panel: dict[str, Any]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The points of each system, the baselines left out. A system of which every point wrote in every row what a point
    of an earlier one did, in the same steps, is one with that: by both names, with the earlier one's points."""
    members: dict[str, list[dict[str, Any]]] = {}
    for entry in panel["methods"]:
        if entry["system"] not in BASELINES:
            members.setdefault(entry["system"], []).append(entry)
    owner = {entry["method"]: entry["system"] for entry in panel["methods"]}
    names: dict[str, list[str]] = {}
    for system, entries in members.items():
        # Older results do not tell which are alike.
        [twin, *others] = {owner.get(entry.get("same_rows_as")) for entry in entries}
        names.setdefault(twin if not others and twin in names else system, []).append(system)
    return {tuple(same): members[first] for first, same in names.items()}


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


def large_score(panel: dict[str, Any]) -> float:
    """The score of the large model alone."""
    return next(entry["quality"]["score"] for entry in panel["methods"] if entry["method"] == "large")


def equal_in_law(entry: dict[str, Any], panel: dict[str, Any]) -> bool:
    """Its texts are drawn as the large model's are, by construction: what their scores differ in is luck. Older results
    do not tell."""
    return panel["temperature"] > 0 and entry.get("lossless", False)


def _levels(panel: dict[str, Any]) -> list[dict[str, Any]]:
    levels: list[dict[str, Any]] = panel.get("best_at", [])  # older results have none
    return levels


def _least(entry: dict[str, Any]) -> float:
    """The quality that it may be off the large model's, at worst."""
    low: float = entry["quality"]["difference_to_large"]["low"]
    return 0.0 if entry.get("lossless", False) else low


def _fastest(entries: Sequence[dict[str, Any]], panel: dict[str, Any]) -> str:
    if not entries:
        return NOTHING
    best = max(entries, key=lambda entry: entry["latency"]["speedup"]["value"])
    return f"{best['latency']['speedup']['value']:.2f}x, {_told(best, panel)}"


def _best(level: dict[str, Any], members: Sequence[dict[str, Any]], panel: dict[str, Any]) -> str:
    reached = {point["method"]: point["off_best"]["high"] for point in level["points"]}
    own = [entry for entry in members if entry["method"] in reached]
    if not own:
        return NOTHING
    [entry] = own
    mark = BEST if entry["method"] == level["best"] else ALIKE if reached[entry["method"]] >= 0 else ""
    return f"{_told(entry, panel)} {mark}".strip()


def _told(entry: dict[str, Any], panel: dict[str, Any]) -> str:
    """Quality and setting of a point."""
    quality = IN_LAW if equal_in_law(entry, panel) else number(entry["quality"]["score"], 2)
    return f"{quality} ({entry['setting']})" if entry["setting"] else quality


def _off_large(entry: dict[str, Any], panel: dict[str, Any]) -> str:
    if entry["method"] == "large":
        return NOTHING
    if equal_in_law(entry, panel):
        return IN_LAW
    off = entry["quality"]["difference_to_large"]
    return f"{off['value']:+.2f} ({off['low']:+.2f} to {off['high']:+.2f})"
