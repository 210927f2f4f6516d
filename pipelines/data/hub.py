"""Pairs from a dataset on the Hugging Face hub. Knows the datasets library; knows nothing about tasks or formats."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, config, load_dataset
from huggingface_hub import HfApi, constants

from pipelines.cli import UserError, counted, first_line
from pipelines.data import columns as sides

NO_NETWORK = "ConnectError"  # no such host, no route, refused; a network that is slow times out
TIMEOUT = 10  # seconds
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where a dataset lies on the hub. Only data files are read: datasets 4 and later run no dataset's code."""

    path: str  # owner/name
    config: str | None = None
    folder: str | None = None  # for revision refs/convert/parquet, which has a folder per config and no config names
    revision: str | None = None
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )  # our name -> the dataset's, or a part of it: train[-500:]

    def load(self, split: str, columns: tuple[str, str], limit: int | None = None) -> Dataset:
        """The split's pairs without those that have an empty side, of which some of these datasets have a few.

        A side is a column, or a text with several in braces (``pipelines.data.columns``).

        Raises:
            UserError: no such split, column, dataset, or no network.
        """
        if split not in self.splits:
            raise UserError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        dataset = self._pairs(self._fetch(self.splits[split]).flatten(), columns)
        table = dataset.data.table
        full = np.flatnonzero(_has_text(table["source"]) & _has_text(table["target"]))
        if len(full) < len(dataset):
            left_out = counted(len(dataset) - len(full), "row")
            log.warning("%s, %s: %s with an empty side left out", self.path, split, left_out)
            dataset = dataset.select(full)
        dataset.info.description = ""  # the card's text says nothing about which rows these are
        return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))

    def _fetch(self, split: str) -> Dataset:
        with _offline_without_network(self.path) as reached:
            try:
                return load_dataset(self.path, self.config, data_dir=self.folder, revision=self.revision, split=split)
            except Exception as error:  # network, name, config, split, data; the HTTP client's have no public name
                reason = first_line(error) if reached else "it cannot be reached, and nothing was downloaded before"
                raise UserError(
                    f"cannot load {self.path} from the Hugging Face hub ({reason}); {self._remedy(error)}, or "
                    "give local files: task.data_files={train: F, validation: F, test: F}"
                ) from None

    def _remedy(self, error: Exception) -> str:
        """What to do about it. The datasets library has one class for several causes, told apart by its words alone."""
        if "is a gated dataset" in str(error):
            return f"ask for access on https://huggingface.co/datasets/{self.path}, then `hf auth login`"
        if "scripts are no longer supported" in str(error):
            return "read the hub's conversion: task.origin.revision=refs/convert/parquet task.origin.folder=CONFIG"
        return "check the network and the name, run again where a download broke off"

    def _pairs(self, raw: Dataset, columns: tuple[str, str]) -> Dataset:
        names = {column: self._name(column, raw.column_names) for side in columns for column in sides.names(side)}
        if any(map(sides.is_filled, columns)):
            return Dataset(pa.table([_side(raw, side, names) for side in columns], names=["source", "target"]))
        source, target = (names[column] for column in columns)
        return raw.select_columns([source, target]).rename_columns({source: "source", target: "target"})

    def _name(self, column: str, names: list[str]) -> str:
        last = column.rsplit(".", 1)[-1]
        for name in (column, last):
            if name in names:
                return name
        raise UserError(
            f"{self.path} has no column {column!r} (it has {', '.join(names)}); "
            "set task.source_column and task.target_column"
        )


@contextmanager
def _offline_without_network(path: str) -> Iterator[bool]:
    """Whether anything answers. Where nothing does, the libraries look at what was downloaded before, as they do with
    HF_HUB_OFFLINE=1 in the environment: their retries, for slow networks, would take most of a minute to get there."""
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    reached = True
    try:
        HfApi().dataset_info(path, timeout=TIMEOUT)
    except Exception as error:  # whatever else is wrong is told by who loads; the HTTP library's errors are not public
        reached = type(error).__name__ != NO_NETWORK
    try:
        if not reached:
            constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        yield reached
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _side(raw: Dataset, side: str, names: Mapping[str, str]) -> pa.Array:
    """The texts of one side; ``names`` are those of its columns in the data."""
    columns = sides.names(side)
    rows = zip(*(raw.data.table[names[column]].to_pylist() for column in columns), strict=True)
    values = (["" if value is None else value for value in row] for row in rows)
    if not sides.is_filled(side):
        return pa.array((value for (value,) in values), pa.string())
    return pa.array((sides.fill(side, dict(zip(columns, row, strict=True))) for row in values), pa.string())


def _has_text(column: pa.ChunkedArray) -> np.ndarray:
    """Which values are more than white space."""
    length = pc.utf8_length(pc.utf8_trim_whitespace(column))
    return pc.greater(pc.fill_null(length, 0), 0).to_numpy()
