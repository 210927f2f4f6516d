"""A calibration's outcome as a file, and as tables for people. results/README.md documents the files.

Knows names, sections and columns; the numbers come from ``run`` and ``study``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.calibration.parts import Parts
from pipelines.decoding.calibrated import KIND, SCHEMA, identity
from pipelines.evaluation import provenance
from pipelines.evaluation.table import NOTHING, PIPE_WIDTH, number, percent, speedup
from pipelines.files import write_json

COVERAGE = "coverage"


def calibration(config: DictConfig, parts: Parts, task: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The whole content of policy.json; ``measured`` is that of ``run.calibrate``."""
    wanted = parts.wanted
    words = [type(wanted.risk).__name__, f"max_drop{wanted.max_drop:g}", f"delta{wanted.delta:g}"]
    return {**_head(KIND, config, parts, words), "task": task, **measured}


def coverage(config: DictConfig, parts: Parts, measured: dict[str, Any]) -> dict[str, Any]:
    """The whole content of a study's file; ``measured`` is that of ``study.study``."""
    return {**_head(COVERAGE, config, parts, [COVERAGE]), **measured}


def file(config: DictConfig, name: str) -> Path:
    """Where a record goes under ``out``."""
    return Path(config.out) / config.task.name / f"{name}.json"


def write(content: dict[str, Any], *paths: Path) -> None:
    """The same record at every path."""
    for path in paths:
        write_json(content, path)


def print_curve(content: dict[str, Any]) -> None:
    """Every point, in the order of risk."""
    rows = [curve_row(point) for point in sorted(content["curve"], key=lambda point: point["risk"])]
    _print(f"{content['task']['name']}, risk: {content['promise']['risk']}", CURVE_TITLES, rows)


def print_coverage(content: dict[str, Any]) -> None:
    """Every risk and bound of a study."""
    title = f"{content['draws']['resplits']} re-splits of {content['pool']['examples']} rows"
    _print(title, COVERAGE_TITLES, [coverage_row(check) for check in content["checks"]])


CURVE_TITLES = ("policy", "speedup", "score", "risk", "risk, tested", "bound", "outcome")


def curve_row(point: dict[str, Any]) -> list[str]:
    """One point as short strings."""
    test = point["test"]
    figures = (None, None) if test is None else (test["risk"], test["bound"])
    outcome = NOTHING if test is None else {True: "passed", False: "failed"}[test["passed"]]
    return [
        point["label"],
        speedup(point["speedup"], is_unit=False),
        number(point["score"], 2),
        number(point["risk"], 4),
        *(number(figure, 4) for figure in figures),
        "lossless" if point["lossless"] else outcome,
    ]


COVERAGE_TITLES = (
    "risk",
    "max_drop",
    "a point passes",
    "speedup",
    "promise held",
    "binomial p",
    "held on rows left out",
    "held, mean as test",
)


def coverage_row(check: dict[str, Any]) -> list[str]:
    """One risk and one bound as short strings."""
    bound = check["bound"]
    return [
        check["risk"] + ("" if check["guaranteed"] else " (approximate)"),
        f"{check['max_drop']:g}",
        percent(bound["lossy"]),
        f"{bound['speedup']:.2f}x",
        percent(bound["held"]),
        f"{bound['p_value']:.3f}",
        percent(bound["held_out"]),
        percent(check["mean"]["held"]),
    ]


def _head(kind: str, config: DictConfig, parts: Parts, words: Sequence[str]) -> dict[str, Any]:
    models = [model.name for model in parts.pair.described.values()]
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": re.sub(r"[^\w.+-]+", "_", "-".join(["calibrate", *models, *words])),
        "models": {role: asdict(model) for role, model in parts.pair.described.items()},
        "fits": identity(parts.pair, parts.task, parts.decoding),
        "decoding": asdict(parts.decoding),
        "provenance": provenance.collect(config),
    }


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
