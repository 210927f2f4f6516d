"""Text to token ids. Knows a task's prefix and lengths and any tokenizer; knows nothing about models or batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datasets import Dataset
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from pipelines.data.task import Task

PATIENCE = 5  # seconds until a progress bar is shown


def encode(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task) -> Dataset:
    """Token ids of every pair, in the same order, not padded.

    Args:
        dataset: string columns ``source`` and ``target``.
        tokenizer: appends EOS itself, as T5's and those of ``pipelines.data.vocabulary`` do.
        task: gives ``prefix``, ``source_length`` and ``target_length`` (tokens, EOS included).

    Returns:
        ``input_ids`` and ``attention_mask`` of at most ``source_length``, ``labels`` of at most ``target_length``
        ids. What is too long loses its end, never its EOS.
    """

    name = [dataset._fingerprint, _content(tokenizer), task.prefix, task.source_length, task.target_length]
    with _late_bar(len(dataset)) as bar:

        def ids(batch: dict[str, list[str]]) -> dict[str, Any]:
            sources = [task.prefix + text for text in batch["source"]]
            encoded = tokenizer(sources, max_length=task.source_length, truncation=True)
            labels = tokenizer(text_target=batch["target"], max_length=task.target_length, truncation=True)
            bar.update(len(sources))
            return {
                "input_ids": encoded["input_ids"],
                "attention_mask": encoded["attention_mask"],
                "labels": labels["input_ids"],
            }

        return dataset.map(
            ids,
            batched=True,
            remove_columns=dataset.column_names,
            new_fingerprint=hashlib.sha256(json.dumps(name).encode()).hexdigest()[:32],
        )


@contextmanager
def _late_bar(rows: int) -> Iterator[tqdm]:
    """A progress bar for work that takes long, and nothing for work that does not, in place of the library's own."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with tqdm(total=rows, desc="encoding", unit="row", delay=PATIENCE, leave=False) as bar:
            yield bar
    finally:
        if shown:
            enable_progress_bars()


def _content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the tokenizer does. The truncation and padding of its last call are left out: they would spoil the key."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in content.items() if key not in ("truncation", "padding")}
