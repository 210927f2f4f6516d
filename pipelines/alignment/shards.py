"""The outputs of the large model on disk: Parquet shards, each written at once, and a manifest written last.

A shard is a fixed range of the inputs and carries, in its footer, the identity of the run that wrote it (source, model,
decoding), so that a folder can be continued by the same run only. Knows nothing of models, tasks or training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from pipelines.cli import UserError
from pipelines.files import replacing
from pipelines.models import manifest

_KEY = b"alignment"
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),  # row of the task's split
        ("sample", pa.int32()),  # 0 .. samples - 1
        ("source", pa.string()),  # without the task's prefix
        ("target", pa.string()),  # what the large model wrote, as text
        ("tokens", pa.list_(pa.int32())),  # the same as token ids, EOS included where it was written
    ]
)


@dataclass(frozen=True)
class Plan:
    """Which inputs belong to which shard; does not depend on the batch size nor on the number of processes."""

    rows: int  # inputs
    shard_rows: int  # inputs per shard; the last one may have fewer
    samples: int  # outputs per input

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    def inputs(self, shard: int) -> range:
        """The rows of the source that shard number ``shard`` answers."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))

    def outputs(self, shard: int) -> int:
        return len(self.inputs(shard)) * self.samples


@dataclass(frozen=True)
class ShardFolder:
    """One folder of shards. ``identity``: what decides the rows, a flat dict of JSON values."""

    path: Path
    plan: Plan
    identity: dict[str, Any]

    def file(self, shard: int) -> Path:
        return self.path / f"shard-{shard:05d}.parquet"

    def finished(self, shards: Iterable[int]) -> list[int]:
        """Those of ``shards`` that are there and whole; a damaged one is named in one printed line and removed.

        Raises UserError if the folder holds a shard of another identity, naming what differs.
        """
        recorded = self._recorded()
        done = []
        for shard in shards:
            file = self.file(shard)
            if not file.exists():
                continue
            rows = _rows_of(file, self.identity)
            digest = recorded.get(file.name)
            if rows == self.plan.outputs(shard) and (digest is None or digest == manifest.sha256(file)):
                done.append(shard)
            else:
                print(f"{file} is damaged and will be generated again", flush=True)
                file.unlink()
        return done

    def missing(self) -> list[int]:
        """Numbers of the shards without a file; cheap, for waiting."""
        return [shard for shard in range(self.plan.shards) if not self.file(shard).exists()]

    def write(self, shard: int, rows: list[dict[str, Any]]) -> None:
        """Write one shard; it appears under its name only when it is whole and on disk."""
        footer = {_KEY: json.dumps(self.identity, sort_keys=True).encode()}
        table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(footer))
        final = self.file(shard)
        try:
            with replacing(final) as temporary:
                pq.write_table(table, temporary, compression="zstd")
        except OSError as error:
            raise UserError(f"{final} could not be written: {error}; make room, then start the same command") from error

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the manifest (identity, summary, rows and SHA-256 per shard): the folder is complete."""
        for leftover in self.path.glob(".shard-*.tmp"):  # of runs that were killed
            leftover.unlink(missing_ok=True)
        rows = {self.file(shard).name: self.plan.outputs(shard) for shard in range(self.plan.shards)}
        manifest.write(self.path, identity=self.identity, summary=summary, rows=rows)

    def columns(self, shard: int, names: list[str]) -> list[list[Any]]:
        """Some columns of one shard, in the order of the source, then of the sample."""
        table = pq.read_table(self.file(shard), columns=names)
        return [table[name].to_pylist() for name in names]

    def dataset(self) -> Dataset:
        """All rows (index, sample, source, target, tokens), in the order of the source, then of the sample."""
        tables = [pq.read_table(self.file(shard)) for shard in range(self.plan.shards)]
        return Dataset(pa.concat_tables(tables).replace_schema_metadata(None))

    def _recorded(self) -> dict[str, str]:
        """File name -> SHA-256 from the manifest; empty if there is none, or none that can be read."""
        try:
            found = manifest.read(self.path)
        except manifest.IncompleteError:
            return {}
        _refuse_other(found.get("identity", {}), self.identity, self.path)
        return {name: file["sha256"] for name, file in found["files"].items()}


def _rows_of(file: Path, identity: dict[str, Any]) -> int | None:
    """Rows that the footer states; None if the file cannot be read. Refuses a shard of another identity."""
    try:
        footer = pq.read_metadata(file)
        found = json.loads(footer.metadata[_KEY])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):
        return None
    _refuse_other(found, identity, file.parent)
    return footer.num_rows


def _refuse_other(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise UserError that names every key in which the outputs in ``folder`` are not those that are wanted."""
    differing = manifest.differences(found, wanted)
    if differing:
        raise UserError(
            f"{folder} holds other outputs: {'; '.join(differing)}. Give the old settings to use them, "
            "align.outputs=FOLDER for new ones, or delete the folder"
        )
