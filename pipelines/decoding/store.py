"""Rows of results on disk: chunks that are written atomically, so that a killed run finds what it has finished.

Knows Parquet and the shape of a decoded row; knows nothing about models. A store belongs to one fingerprint of
everything that decides what its rows hold, which is its folder's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

import bild
from pipelines.decoding.rows import DecodedRow, kept_tokens
from pipelines.files import replacing

Row = TypeVar("Row")
STATS = tuple(field.name for field in fields(bild.RowStats))
TRACE = pa.list_(
    pa.struct(
        [
            ("token_id", pa.int32()),
            ("model", pa.string()),
            ("round", pa.int32()),
            ("confidence", pa.float32()),
            ("reason", pa.string()),
            ("layers", pa.int16()),
        ]
    )
)
SCHEMA = pa.schema(
    [("row", pa.int64()), ("text", pa.string()), *((name, pa.int64()) for name in STATS), ("trace", TRACE)]
)


@dataclass(frozen=True)
class Format(Generic[Row]):
    """How a row is kept: its columns, among them "row" for the example's index, and the way there and back."""

    schema: pa.Schema
    to_record: Callable[[int, Row], dict[str, Any]]
    from_record: Callable[[dict[str, Any]], Row]


class ChunkStore(Generic[Row]):
    """A folder of Parquet files, one per chunk of rows; without a format, of decoded rows."""

    def __init__(self, folder: Path, row_format: Format[Row] | None = None) -> None:
        self._folder = folder
        self._format = DECODED if row_format is None else row_format

    def read(self, chunk: int, rows: Sequence[int]) -> list[Row] | None:
        """The finished rows of a chunk in the order of ``rows`` (indices of examples), or None if it is not there.

        A file of other rows, or one that cannot be read, counts as not there.
        """
        path = self._path(chunk)
        if not path.exists():
            return None
        try:
            records = pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError):
            return None
        if [record["row"] for record in records] != list(rows):
            return None
        return [self._format.from_record(record) for record in records]

    def write(self, chunk: int, rows: Sequence[int], results: Sequence[Row]) -> None:
        """Write a chunk whole or not at all."""
        records = [self._format.to_record(row, one) for row, one in zip(rows, results, strict=True)]
        write_table(pa.Table.from_pylist(records, schema=self._format.schema), self._path(chunk))

    def _path(self, chunk: int) -> Path:
        return self._folder / f"{chunk:05d}.parquet"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _to_record(row: int, decoded: DecodedRow) -> dict[str, Any]:
    trace = [asdict(token) for token in decoded.trace]
    return {"row": row, "text": decoded.text, **asdict(decoded.stats), "trace": trace}


def _from_record(record: dict[str, Any]) -> DecodedRow:
    trace = [bild.TokenTrace(**token) for token in record["trace"]]
    stats = bild.RowStats(**{name: record[name] for name in STATS})
    return DecodedRow(record["text"], kept_tokens(trace), stats, trace)


DECODED = Format(SCHEMA, _to_record, _from_record)
