"""The steps of an alignment: the large model answers, the answers become training rows, two small models are compared.

Knows loaded models, a task and the folder of outputs; knows nothing about Hydra, tables or where models lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import bild
from bild.checks import as_ids
from bild.policies.base import Policy
from pipelines.alignment.comparison import Comparison, Examples, Figure, figures
from pipelines.alignment.outputs import Processes, Sources, write_outputs
from pipelines.alignment.settings import AlignSettings
from pipelines.alignment.shards import Plan, ShardFolder
from pipelines.data.encode import encode
from pipelines.data.task import Task, fingerprint
from pipelines.decoding.decode import BatchDecoder, Decoding, source_ids
from pipelines.decoding.pair import Pair
from pipelines.models.fingerprint import model_hash, tokenizer_hash
from pipelines.models.loading import LoadedModel
from pipelines.training.run import held


@dataclass(frozen=True)
class Outputs:
    """What the large model wrote for one split."""

    rows: Dataset
    """index, sample, source, target (its text), tokens; ordered by index, then sample"""
    summary: dict[str, int]
    """outputs, tokens, empty, cut"""
    identity: dict[str, Any]
    """what decided them"""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The large model, ready to decode, and how it is run; ``AlignSettings`` says how it answers."""

    large: LoadedModel
    engine: str
    batch_size: int
    processes: Processes

    def answer(self, task: Task, split: str, dataset: Dataset, settings: AlignSettings, seed: int) -> Outputs:
        """Outputs for every row of ``dataset``, from ``{settings.outputs}/{split}`` as far as they are there.

        Raises:
            UserError: another run writes there, or the folder holds other outputs.
        """
        large, tokenizer = self.large.model, self.large.tokenizer
        identity = {
            "split": split,
            "rows": len(dataset),
            "data": fingerprint(dataset),
            "task.prefix": task.prefix,
            "task.source_length": task.source_length,
            "engine": self.engine,
            "dtype": str(large.dtype).removeprefix("torch."),
            "large": model_hash(large),
            "tokenizer": tokenizer_hash(tokenizer),
            **settings.identity(task.target_length, seed),
        }
        plan = Plan(rows=len(dataset), shard_rows=settings.shard_rows, samples=settings.samples)
        folder = ShardFolder(Path(settings.outputs) / split, plan, identity)
        decoding = Decoding(
            max_new_tokens=settings.max_new_tokens(task.target_length),
            do_sample=settings.temperature > 0,
            temperature=settings.temperature,
            seed=seed,
            engine=self.engine,
        )
        decoder = BatchDecoder(large, None, tokenizer, decoding)
        with held(folder.path):
            summary = write_outputs(
                folder,
                Sources(dataset["source"], partial(source_ids, tokenizer=tokenizer, task=task)),
                partial(decoder.decode_many, bild.LargeOnly(), batch_size=self.batch_size),
                label=f"outputs for {split}",
                eos_token_ids=end_tokens(large),
                processes=self.processes,
            )
        return Outputs(folder.dataset(), summary, identity)


def greedy(settings: AlignSettings) -> AlignSettings:
    """The same settings with one greedy output per input: what held-out rows are compared with."""
    return replace(settings, temperature=0.0, samples=1)


def training_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task) -> Dataset:
    """``input_ids``, ``attention_mask`` and ``labels``; the labels are the very tokens that the large model wrote.

    They are not made from the text again: that may split it otherwise, and would end outputs that were cut with an EOS.
    """
    inputs = encode(rows, tokenizer, task).remove_columns("labels")
    return concatenate_datasets([inputs, rows.select_columns("tokens").rename_column("tokens", "labels")], axis=1)


def compare(
    teacher: Teacher,
    before: Pair,
    after: Pair,
    policy: Policy,
    examples: Examples,
    task: Task,
    seed: int,
    cache: Path,
) -> tuple[dict[str, Figure], float]:
    """Figures of the large model with two small ones on some held-out rows, and its own score on them."""
    decoding = Decoding(max_new_tokens=task.target_length, engine=teacher.engine)
    comparison = Comparison(decoding, policy, examples, teacher.batch_size, cache)
    measured = [comparison.measure(pair, label) for pair, label in ((before, "before"), (after, "after"))]
    return figures(*measured, task.metric, seed), comparison.large_quality


def examples(
    tokenizer: PreTrainedTokenizerBase, task: Task, pairs: Dataset, outputs: Dataset, limit: int | None
) -> Examples:
    """The first ``limit`` rows (None = all) of a split and what the large model wrote for them, one output each."""
    rows = len(pairs) if limit is None else min(limit, len(pairs))
    return Examples(
        inputs=source_ids(pairs["source"][:rows], tokenizer, task),
        references=pairs["target"][:rows],
        large_texts=outputs["target"][:rows],
        large_tokens=outputs["tokens"][:rows],
        metric=task.metric,
    )


def end_tokens(model: PreTrainedModel) -> list[int]:
    """Ids that end an output."""
    return list(as_ids(model.generation_config.eos_token_id))
