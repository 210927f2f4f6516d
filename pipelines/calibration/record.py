"""A calibration's outcome as a file. results/README.md documents it.

Knows names and sections; the numbers come from ``run`` and ``study``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pipelines.calibration.parts import CalibrationParts
from pipelines.decoding.calibrated import KIND, SCHEMA, data_identity, identity
from pipelines.evaluation.command import naming
from pipelines.evaluation.results import joined_name
from pipelines.files import write_json
from pipelines.models.fingerprint import key

COVERAGE = "coverage"
# Overrides that every name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("large", "small", "task", "task.name", "out", "device")


def calibration(
    config: DictConfig, parts: CalibrationParts, task: dict[str, Any], measured: dict[str, Any], beside: Path
) -> dict[str, Any]:
    """The whole content of policy.json; ``measured`` is that of ``run.calibrate``.

    Args:
        beside: where the pair's policy lies. The promises that it has made of the same rows before are counted: each
            holds with its own probability, and one that was sought until it pleased with less.
    """
    wanted = parts.wanted
    words = [type(wanted.risk).__name__, f"max_drop{wanted.max_drop:g}", f"delta{wanted.delta:g}"]
    extras = _extras(parts, task["data"], measured, told=("risk", "max_drop", "delta"))
    head = _head(KIND, parts, [*words, *extras])
    data = {**data_identity(parts.task), "split": config.split}
    made = {name: measured["promise"][name] for name in ("risk", "max_drop", "delta", "bound")}
    made |= {"label": measured["label"], "data": data, "fits": key(head["fits"])}
    earlier = [one for one in _earlier(beside) if one != made]
    number = 1 + sum((one["data"], one["fits"]) == (data, made["fits"]) for one in earlier)
    promise = {**measured["promise"], "calibration": number}
    if number > 1:
        promise["statement"] += (
            f"; calibration {number} of this pair on this split: {1 - wanted.delta:g} is for each alone"
        )
    told = {"data": data_identity(parts.task), "history": [*earlier, made]}
    return {**head, **told, "task": task, **measured, "promise": promise, "left_out": list(parts.left_out)}


def _earlier(beside: Path) -> list[dict[str, Any]]:
    """The promises of earlier calibrations, each with the hash of the weights and settings that it was made for."""
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        return [{"fits": key(found["fits"]), **one} for one in found["history"]]  # older files have those of one alone
    except (OSError, ValueError, KeyError, TypeError):
        return []


def coverage(parts: CalibrationParts, measured: dict[str, Any]) -> dict[str, Any]:
    """The whole content of a study's file; ``measured`` is that of ``study.study``."""
    extras = _extras(parts, measured["pool"]["data"], measured)
    return {**_head(COVERAGE, parts, [COVERAGE, *extras]), **measured}


def file(config: DictConfig, name: str) -> Path:
    """Where a record goes under ``out``."""
    return Path(config.out) / config.task.name / f"{name}.json"


def write(content: dict[str, Any], *paths: Path) -> None:
    """The same record at every path."""
    for path in paths:
        write_json(content, path)


def _extras(parts: CalibrationParts, data: str, measured: dict[str, Any], told: Sequence[str] = ()) -> list[str]:
    """For the name: whatever else the user has set, but for what ``told`` says in another way."""
    _, extras = naming(parts.pair, data, measured["run"]["device"], (*TOLD_OTHERWISE, *told))
    return [f"{name}{value}" for name, value in extras.items()]


def _head(kind: str, parts: CalibrationParts, words: Sequence[str]) -> dict[str, Any]:
    models = [model.name for model in parts.pair.described.values()]
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": joined_name(["calibrate", *models, *words]),
        "models": {role: asdict(model) for role, model in parts.pair.described.items()},
        "fits": identity(parts.pair, parts.task, parts.decoding),
        "decoding": asdict(parts.decoding),
        "provenance": parts.provenance,
    }
