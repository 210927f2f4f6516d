"""An analysis to one HTML file that needs no network. Everything comes from the file of the analysis.

Knows the schema of an analysis and its template; knows nothing about models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from pipelines.analysis import plots, tables
from pipelines.analysis.tables import Content
from pipelines.evaluation.report import cells, common_facts, page_template
from pipelines.evaluation.table import percent
from pipelines.files import write_text

BUSY = 2.0  # how often a median step may hold the fastest one before the machine is called busy
PLOTS = ("by_position", "reliability", "steps", "draft_lengths", "mixing", "ablation")
OPTIONAL = ("reliability", "mixing", "ablation")  # plots of tables that not every pair has


def write_report(content: Content, path: Path) -> Path:
    """Write the report of one analysis."""
    template = page_template(Path(__file__).parent, "analysis.html.j2")
    shown = tables.all_tables(content)
    html = template.render(
        content=content,
        headline=headline(content),
        facts=common_facts(content),
        tables={name: cells(table.columns, table.entries, table.marked) for name, table in shown.items()},
        plots={name: Markup(getattr(plots, name)(content)) for name in PLOTS if name not in OPTIONAL or name in shown},
        verdict=verdict(content),
        mixing=mixing_words(content),
        ablated=ablated_words(content),
        config=yaml.safe_dump(content["provenance"]["config"], sort_keys=False, allow_unicode=True),
    )
    write_text(html, path)
    return path


def headline(content: Content) -> str:
    """The analysis in two sentences."""
    alpha, c = content["agreement"]["alpha"]["value"], content["steps"]["c"]["value"]
    best = content["draft_lengths"]["best"]
    formula = _point(content, best["formula"])["predicted_speedup"]["formula"]
    measured = _point(content, best["measured"])["latency"]["decode_only"]["speedup"]["value"]
    return (
        f"A drafted token stands with probability {alpha:.2f}, and a step of what drafts costs {c:.2f} steps of the "
        "large model. By Leviathan's formula lossless decoding would be fastest with drafts of "
        f"{best['formula']}, {formula:.2f} times as fast as the large model alone; measured, drafts of "
        f"{best['measured']} are fastest, {measured:.2f} times."
    )


def verdict(content: Content) -> str:
    """Where prediction and measurement part, at the draft length that the formula thinks best."""
    point = _point(content, content["draft_lengths"]["best"]["formula"])
    ways, measured = point["predicted_speedup"], point["latency"]["decode_only"]["speedup"]
    slowed = content["steps"]["median_over_fastest"]
    busy = f" The machine was busy, steps took up to {slowed:.1f} times as long as the fastest of their kind: measure "
    busy += "again when it is not, before c and what follows from it is believed."
    around = f", {ways['loop']:.2f} with what the loop adds to every step" if "loop" in ways else ""
    inside = measured["low"] <= ways["formula"] <= measured["high"]
    agrees = "agrees with the measurement" if inside else "is not what was measured"
    return (
        f"At a draft length of {point['draft_length']} the formula's {ways['formula']:.2f} {agrees}, "
        f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f}). Step by step: "
        f"{ways['positions']:.2f} with the steps that these texts really take, {ways['widths']:.2f} with wider large "
        f"steps at their cost{around}.{busy if slowed > BUSY else ''}"
    )


def mixing_words(content: Content) -> str:
    """How many large tokens the oracle needs."""
    share = tables.enough_share(content)
    loses = f"lose less than {tables.TOLERATED:g} {tables.metric_title(content)} to the large model (95 % interval)"
    if share is None:
        return f"At none of these thresholds is the oracle known to {loses}."
    return f"With {percent(share)} of the tokens from the large model the oracle is known to {loses}."


def ablated_words(content: Content) -> str:
    """What the policy does that is taken apart; nothing where it was left out, and in older analyses."""
    return next((entry.get("summary", "") for entry in tables.series(content, "both")), "")


def _point(content: Content, draft_length: int) -> dict[str, Any]:
    return next(point for point in content["draft_lengths"]["points"] if point["draft_length"] == draft_length)
