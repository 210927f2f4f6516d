"""What a fine-tuning came to, as JSON among the results.

Sections: ``name``; ``task``; ``models`` (``trained``, its ``note`` tells what it was trained from); ``training``
(steps, best validation score, how it ended); ``provenance``. Knows a summary and a finished model; knows nothing about
configs.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines.decoding.pair import describe
from pipelines.files import write_json
from pipelines.models.loading import LoadedModel, Model, load
from pipelines.training.run import TrainSummary

SCHEMA = 1
KIND = "training"
TRAINING = ("steps", "max_steps", "metric", "best", "best_step", "seconds", "resumed_from", "ended")


def write_result(
    summary: TrainSummary,
    model: Model,
    start: LoadedModel,
    *,
    task: dict[str, Any],
    provenance: dict[str, Any],
    file: Path,
) -> None:
    """Write what is known of the finished model in ``summary.out``.

    Args:
        model: what was asked for.
        start: where the training began.
        task: the "task" section of the training split.
        file: where it goes.
    """
    there = replace(model, path=str(summary.out), tokenizer=None, revision=None, init="pretrained")
    trained = load(there, task["name"], "finetune").model
    result = {
        "schema": SCHEMA,
        "kind": KIND,
        "name": file.stem,
        "task": task,
        "models": {"trained": asdict(describe(trained, str(summary.out), start.note))},
        "training": {name: value for name, value in asdict(summary).items() if name in TRAINING},
        "provenance": provenance,
    }
    write_json(result, file)
    print(f"result {file}")
