"""A calibration's outcome as a file. results/README.md documents it.

Knows names and sections; the numbers come from ``run`` and ``study``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pipelines.calibration.parts import Parts
from pipelines.decoding.calibrated import KIND, SCHEMA, identity
from pipelines.evaluation import provenance
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
