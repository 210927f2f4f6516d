"""A comparison on disk: one JSON file, which results/README.md documents, its picture and its report beside it.

Knows names, files and their schema; the numbers come from ``run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.comparison import plots, tables
from pipelines.evaluation.report import cells, page_template
from pipelines.evaluation.results import SCHEMA, joined_name
from pipelines.files import write_json, write_text

KIND = "comparison"


def file_name(split: str, models: Mapping[str, str], extras: Mapping[str, Any]) -> str:
    """The name of a result, without suffix.

    Args:
        split: of the task.
        models: names of the models, large first.
        extras: further settings that differ from their defaults, by name.
    """
    return joined_name(["compare", split, *models.values(), *(f"{name}{value}" for name, value in extras.items())])


def write(content: dict[str, Any], folder: Path) -> Path:
    """Write ``folder/{name}.json``, ``.svg`` and ``.html``; returns the first."""
    path = folder / f"{content['name']}.json"
    picture = plots.plane(content)
    write_text(page(content, picture), path.with_suffix(".html"))
    write_text(plots.standalone(picture), path.with_suffix(".svg"))
    write_json({"schema": SCHEMA, "kind": KIND, **content}, path)
    return path


def page(content: dict[str, Any], picture: str) -> str:
    """The report: one file that needs no network."""
    metric = content["task"]["metric"]
    sections = [
        {
            "heading": tables.heading(panel),
            "systems": cells(tables.system_columns(metric, panel), tables.system_rows(panel)),
            "all": cells(tables.all_columns(metric, panel), panel["methods"]),
            "seeds": len(panel["run"].get("seeds", [0])),  # older results tell of none
            "left_out": panel["left_out"],
            "cost_ratio": panel["cost_ratio"],
        }
        for panel in content["panels"]
    ]
    template = page_template(Path(__file__).parent, "comparison.html.j2")
    return template.render(
        content=content,
        sections=sections,
        picture=Markup(picture),
        what_they_do=tables.what_they_do(content),
    )
