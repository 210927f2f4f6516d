"""A task: what the pairs are, where they come from, how long they may be and how they are scored.

Knows nothing about models or tokenizers; the origins (files, hub, generators) know nothing about tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from datasets import Dataset

from pipelines.cli import UserError, check_whole
from pipelines.data import files

SPLITS = ("train", "validation", "test")
METRICS = ("bleu", "rouge")


class Origin(Protocol):
    """Where a task's pairs come from when no local files are given."""

    def load(self, split: str, columns: tuple[str, str], limit: int | None) -> Dataset:
        """The first ``limit`` pairs of a split (all if None), in a fixed order.

        ``columns`` are the names of the source and the target in the raw data; a generator has no use for them.
        The result has the string columns ``source`` and ``target``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One sequence-to-sequence task, instantiated by Hydra from ``conf/task/{name}.yaml``.

    ``load`` gives the text; ``pipelines.data.encode.encode`` turns it into token ids.
    """

    name: str
    version: int  # goes up when the same configuration means other rows
    metric: str  # "bleu" or "rouge"
    origin: Origin
    source_length: int  # tokens, EOS included
    target_length: int  # tokens, EOS included
    prefix: str = ""  # put before every source when it is encoded
    source_column: str = "source"  # may be nested: translation.de
    target_column: str = "target"
    data_files: Mapping[str, str | None] = field(default_factory=dict)  # split -> local file, in place of the origin

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UserError(f"task.metric={self.metric}: choose one of {', '.join(METRICS)}")
        for name in ("source_length", "target_length"):
            check_whole(f"task.{name}", getattr(self, name), least=2)  # one token and EOS
        for split in self.data_files:
            check_split(split, "task.data_files")

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
        columns = (self.source_column, self.target_column)
        if not any(self.data_files.values()):
            return self.origin.load(split, columns, limit)
        path = self.data_files.get(split)
        if path is None:
            raise UserError(f"task.data_files has no file for the split {split!r}: add task.data_files.{split}=FILE")
        return files.load(path, columns, limit)


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
