"""A task: what the pairs are, where they come from, how they are asked and scored, how long they may be.

Knows nothing about models or tokenizers; the origins (files, hub, generators) know nothing about tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from datasets import Dataset

from pipelines.cli import UserError, check_whole
from pipelines.data import columns, files
from pipelines.data.prompt import FewShot

SPLITS = ("train", "validation", "test")
METRICS = ("bleu", "rouge", "rouge2", "exact_match", "f1", "number")


class Origin(Protocol):
    """Where a task's pairs come from when no local files are given."""

    def load(self, split: str, columns: tuple[str, str], limit: int | None) -> Dataset:
        """The first ``limit`` pairs of a split (all if None), in a fixed order.

        ``columns`` say what of the raw data is the source and what the target (``pipelines.data.columns``); a generator
        has no use for them.
        The result has the string columns ``source`` and ``target``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task, instantiated by Hydra from ``conf/task/{name}.yaml``.

    ``load`` gives the text; ``pipelines.data.encode.encode`` turns it into token ids for training,
    ``pipelines.decoding.decode.source_ids`` for decoding.
    """

    name: str
    version: int  # goes up when the same configuration means other rows
    metric: str  # one of METRICS; for "exact_match" and "f1" a target is one right answer a line
    source_length: int  # tokens, EOS included; of the whole prompt where there is one
    target_length: int  # tokens, EOS included
    prefix: str = ""  # put before every source when it is encoded, before the examples where there are some
    prompt: FewShot | None = None  # how a source is asked; None = it is what an encoder reads
    source_column: str = "source"  # may be nested, translation.de, or a text with columns in braces
    target_column: str = "target"
    data_files: Mapping[str, str | None] = field(default_factory=dict)  # split -> local file, in place of the origin
    origin: Origin | None = None  # None = there are local files alone

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UserError(f"task.metric={self.metric}: choose one of {', '.join(METRICS)}")
        for name in ("source_length", "target_length"):
            check_whole(f"task.{name}", getattr(self, name), least=2)  # one token and EOS
        for name in ("source_column", "target_column"):
            try:
                columns.names(getattr(self, name))
            except ValueError as error:
                raise UserError(f"task.{name}={getattr(self, name)}: {error}; write columns as {{column}}") from error
        if not isinstance(self.data_files, Mapping):
            raise UserError(f"task.data_files={self.data_files}: give a file for each split, such as {{test: FILE}}")
        for split, file in self.data_files.items():
            check_split(split, "task.data_files")
            if not isinstance(file, str | None):
                raise UserError(f"task.data_files.{split}={file}: give a file, or null for none")

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """What stands before every question, taken from the training split; nothing where there is no prompt.

        Raises:
            UserError: as ``load`` does for the training split, and where it has too few rows.
        """
        if self.prompt is None or self.prompt.shots == 0:
            return ()
        return self.prompt.choose(self.load("train"))

    def load(self, split: str, limit: int | None = None) -> Dataset:
        """The pairs of a split as string columns ``source`` (without the prefix) and ``target``, in the data's order.

        Args:
            split: "train", "validation" or "test".
            limit: take only the first so many rows.

        Raises:
            UserError: unknown split, missing file or column, empty or malformed row, or a hub out of reach.
        """
        check_split(split, "split")
        check_whole("limit", limit, null="the whole split")
        sides = (self.source_column, self.target_column)
        if not any(self.data_files.values()):
            if self.origin is None:
                raise UserError(f"task={self.name}: has neither files nor an origin; give task.data_files.{split}=FILE")
            return self.origin.load(split, sides, limit)
        path = self.data_files.get(split)
        if path is None:
            raise UserError(f"task.data_files has no file for the split {split!r}: add task.data_files.{split}=FILE")
        return files.load(path, sides, limit)


def refuse_prompt(task: Task) -> None:
    """Raise ``UserError`` on a task that no model is trained on."""
    if task.prompt is not None:
        raise UserError(
            f"task={task.name}: is asked with a few-shot prompt, of models as they are; train on a task without one"
        )


def check_split(split: str, where: str) -> None:
    """Raise ``UserError`` unless ``split`` is one of ``SPLITS``."""
    if split not in SPLITS:
        raise UserError(f"{where}: there is no split {split!r}; choose one of {', '.join(SPLITS)}")


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (hex) of the rows' text in their order. Paths, caches and the way of loading do not enter it.

    An origin may name in ``info.description`` what the rows were made from (docstrings: the packages' versions); that
    enters too.
    """
    digest = hashlib.sha256(dataset.info.description.encode())
    for batch in dataset.select_columns(["source", "target"]).iter(batch_size=1000):
        for pair in zip(batch["source"], batch["target"], strict=True):
            for text in pair:
                data = text.encode()
                # The length goes first, so that no two different rows give the same bytes.
                digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
