"""Pairs from a local file: JSON lines, CSV, TSV or Parquet, each also gzipped.

Knows file formats and columns; knows nothing about tasks or splits. Every defect of a file is one line that names
the file, the row (counted from 1, without a CSV header) and what to do.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from pipelines.cli import UserError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
CHUNK = 10_000  # rows turned into Arrow at a time, so that a long file is never held as Python objects

Row = tuple[int, dict[str, Any]]  # number, fields


def load(path: str, columns: tuple[str, str], limit: int | None = None) -> Dataset:
    """The first ``limit`` pairs of a file (all if None), in the file's order, as columns ``source`` and ``target``.

    A column may be nested: ``translation.de`` is the field ``de`` inside ``translation``; where a file is flat, a
    column named ``translation.de`` or just ``de`` serves as well.
    """
    pairs = (_pair(path, row, columns) for row in islice(_rows(path), limit))
    schema = pa.schema([("source", pa.string()), ("target", pa.string())])
    chunks = []
    while chunk := list(islice(pairs, CHUNK)):
        chunks.append(pa.table(list(zip(*chunk, strict=True)), schema=schema))
    if not chunks:
        raise UserError(f"{path}: the file has no rows; give one row per pair")
    return Dataset(pa.concat_tables(chunks))


def find(row: dict[str, Any], column: str) -> Any:
    """The value of a possibly nested column. Raises ``KeyError`` if the row has no such column."""
    if column in row:
        return row[column]
    *parents, last = column.split(".")
    value: Any = row
    for name in [*parents, last]:
        if not isinstance(value, dict) or name not in value:
            return row[last]
        value = value[name]
    return value


def _pair(path: str, numbered: Row, columns: tuple[str, str]) -> tuple[str, str]:
    number, row = numbered
    source, target = (_text(path, number, row, column) for column in columns)
    return source, target


def _text(path: str, number: int, row: dict[str, Any], column: str) -> str:
    try:
        value = find(row, column)
    except KeyError:
        has = ", ".join(_names(row))
        raise UserError(
            f"{path}: row {number} has no column {column!r} (it has {has}); "
            "set task.source_column and task.target_column"
        ) from None
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{path}: row {number}, column {column!r} is {kind}, not text; correct or remove the row")
    if not value.strip():
        raise UserError(f"{path}: row {number}, column {column!r} is empty; fill it or remove the row")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise UserError(
            f"{path}: row {number}, column {column!r} has half a character (\\ud800 to \\udfff); correct it"
        )
    return value


def _names(row: dict[str, Any], parent: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _names(value, f"{parent}{name}.")
        else:
            yield parent + name


def _rows(path: str) -> Iterator[Row]:
    """The rows of a file with their numbers; reading errors of any format become user errors."""
    name = Path(path).name.lower().removesuffix(".gz")
    form = Path(name).suffix
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; paths start at the folder in which the command runs")
    if form not in FORMATS:
        raise UserError(f"{path}: unknown kind of file; give one of {', '.join(FORMATS)}, each also with .gz")
    opened = gzip.open if path.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as stream:
            if form == ".parquet":
                yield from _parquet(stream)
            elif form in (".csv", ".tsv"):
                yield from _csv(path, stream, "," if form == ".csv" else "\t")
            else:
                yield from _jsonl(path, stream)
    except (gzip.BadGzipFile, zlib.error, EOFError, pa.ArrowInvalid, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as {name} ({error}); is the file complete?") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _lines(path: str, stream: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: line {number} is not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def _jsonl(path: str, stream: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, stream), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = "is empty" if not line.strip() else f"is not JSON ({error.msg}, column {error.colno})"
            raise UserError(f"{path}: row {number} {what}; give one JSON object per line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is a JSON {type(row).__name__}, not an object; use {{...}} per line")
        yield number, row


def _csv(path: str, stream: IO[bytes], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a news article is longer than the module's default field
    reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
    header = next(reader, [])
    for number, values in enumerate(reader, start=1):
        if len(values) != len(header):
            raise UserError(
                f"{path}: row {number} (line {reader.line_num}) has {len(values)} fields, the header has "
                f"{len(header)}; quote fields that hold a delimiter or a line break"
            )
        yield number, dict(zip(header, values, strict=True))


def _parquet(stream: IO[bytes]) -> Iterator[Row]:
    number = 0
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=CHUNK):
        for row in batch.to_pylist():
            number += 1
            yield number, row
