"""An analysis on disk: one JSON file, which results/README.md documents, and its report beside it.

Knows names, files and their schema; the numbers come from ``run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.evaluation.results import SCHEMA, joined_name, read_content
from pipelines.files import write_json

KIND = "analysis"
SECTIONS = (
    "name",
    "task",
    "models",
    "policy",
    "decoding",
    "run",
    "agreement",
    "steps",
    "alone_ms_per_token",
    "draft_lengths",
    "baselines",
    "systems",
    "left_out",
    "provenance",
)


def file_name(models: Mapping[str, str], extras: Mapping[str, Any]) -> str:
    """The name of a result, without suffix: ``analyze-{large}-{small}`` and what the user has set beyond the models.

    Args:
        models: names of the models, large first.
        extras: further settings that differ from their defaults, by name.
    """
    return joined_name(["analyze", *models.values(), *(f"{name}{value}" for name, value in extras.items())])


def write(content: dict[str, Any], folder: Path) -> Path:
    """Write ``folder/{name}.json`` and return its path. Raises ValueError where a section is missing."""
    missing = [section for section in SECTIONS if section not in content]
    if missing:
        raise ValueError(f"an analysis lacks {', '.join(missing)}")
    path = folder / f"{content['name']}.json"
    write_json({"schema": SCHEMA, "kind": KIND, **content}, path)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read one analysis. Raises what ``read_content`` does."""
    return read_content(path, KIND, SECTIONS, "analyze")
