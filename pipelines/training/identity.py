"""What decides the weights of a run, beside its settings, as JSON-like values under readable names.

Knows content, never paths: the same data in another file is the same data.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.data.task import Task, fingerprint
from pipelines.models.fingerprint import model_hash, tokenizer_hash


def task_identity(task: Task, train: Dataset, validation: Dataset) -> dict[str, Any]:
    """Of a task and the pairs (``source``, ``target``) that a run uses."""
    return {
        "task": task.name,
        "task.version": task.version,
        "task.prefix": task.prefix,
        "task.source_length": task.source_length,
        "task.target_length": task.target_length,
        "training rows": len(train),
        "training data": fingerprint(train),
        "validation rows": len(validation),
        "validation data": fingerprint(validation),
    }


def start_identity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Of the model that a run starts from."""
    return {"starting weights": model_hash(model), "tokenizer": tokenizer_hash(tokenizer)}
