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
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from pipelines.cli import UserError, counted, first_line
from pipelines.data import columns as sides

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
CHUNK = 10_000  # rows turned into Arrow at a time, so that a long file is never held as Python objects

Row = tuple[int, dict[str, Any]]  # number, fields


def load(path: str, columns: tuple[str, str], limit: int | None = None) -> Dataset:
    """The first ``limit`` pairs of a file (all if None), in the file's order, as columns ``source`` and ``target``.

    A column may be nested: ``translation.de`` is the field ``de`` inside ``translation``; where a file is flat, a
    column named ``translation.de`` or just ``de`` serves as well. In place of a column there may be a text with several
    in braces (``pipelines.data.columns``).
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


def _text(path: str, number: int, row: dict[str, Any], side: str) -> str:
    where, filled = f"{path}: row {number}", sides.is_filled(side)
    values = {column: _value(where, row, column, lists=filled) for column in sides.names(side)}
    text = sides.fill(side, values) if filled else values[side]
    if not text.strip():
        raise UserError(f"{where}, column {side!r} is empty; fill it or remove the row")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise UserError(f"{where}, column {side!r} has half a character (\\ud800 to \\udfff); correct it")
    return text


def _value(where: str, row: dict[str, Any], column: str, *, lists: bool) -> sides.Value:
    """The text of a column, or the texts in it where ``lists`` may be."""
    choose = f"(it has {', '.join(_names(row))}); set task.source_column and task.target_column"
    try:
        value = find(row, column)
    except KeyError:
        raise UserError(f"{where} has no column {column!r} {choose}") from None
    if isinstance(value, dict):
        raise UserError(f"{where}, column {column!r} is an object, not text {choose}")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        if lists:
            return value
        raise UserError(
            f"{where}, column {column!r} is a list, not text; {{{column}}} in braces takes one line per item"
        )
    if not isinstance(value, str):
        raise UserError(f"{where}, column {column!r} is {_kind(value)}, not text; correct or remove the row")
    return value


def _kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    kinds = {str: "a text", list: "a list", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)


def _names(row: dict[str, Any], parent: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _names(value, f"{parent}{name}.")
        else:
            yield parent + name


def _rows(path: str) -> Iterator[Row]:
    """The rows of a file with their numbers; reading errors of any format become user errors."""
    form = Path(path.lower().removesuffix(".gz")).suffix
    if Path(path).is_dir():
        raise UserError(f"{path}: is a folder; give a file")
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; paths start at the folder in which the command runs")
    if form not in FORMATS:
        raise UserError(f"{path}: unknown kind of file; give one of {', '.join(FORMATS)}, each also with .gz")
    opened = gzip.open if path.lower().endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as stream:
            if form == ".parquet":
                rows = _parquet(path, stream)
            elif form in (".csv", ".tsv"):
                rows = _csv(path, stream, "," if form == ".csv" else "\t")
            else:
                rows = _jsonl(path, stream)
            for number, row in rows:
                yield number, row
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read from row {number + 1} on ({first_line(error)}); "
            "is the file complete, and of the kind that its name says?"
        ) from None


def _lines(path: str, stream: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: line {number} is not UTF-8 ({error.reason}); "
                "convert the file to UTF-8, or name it .gz if it is compressed"
            ) from None


def _jsonl(path: str, stream: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, stream), start=1):
        where = f"{path}: row {number}"
        if number == 1 and line.lstrip().startswith("["):
            raise UserError(f"{path}: the file is a JSON array; put one JSON object on every line, as jq -c '.[]' does")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
            what = f"is not JSON ({reason})" if line.strip() else "is empty"
            raise UserError(f"{where} {what}; put one whole JSON object on every line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where} is {_kind(row)}, not an object; put one JSON object, {{...}}, on every line")
        yield number, row


def _csv(path: str, stream: IO[bytes], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a news article is longer than the module's default field
    reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
    header: list[str] = []
    for number in count():  # 0 is the header
        line = reader.line_num + 1
        where = f"{path}: row {number} (line {line})" if number else f"{path}: the header (line {line})"
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{where} cannot be read ({error}); close every quote, and write one inside a field twice"
            ) from None
        if values is None:
            return
        if not values:
            raise UserError(f"{where} is empty; remove the line")
        if number == 0:
            header = values
            _refuse_namesakes(path, header)
        elif len(values) != len(header):
            raise UserError(
                f"{where} has {counted(len(values), 'field')}, the header has {len(header)}; "
                "quote fields that hold a delimiter or a line break"
            )
        else:
            yield number, dict(zip(header, values, strict=True))


def _parquet(path: str, stream: IO[bytes]) -> Iterator[Row]:
    file = pq.ParquetFile(stream)
    _refuse_namesakes(path, file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches(batch_size=CHUNK):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _refuse_namesakes(path: str, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{path}: {times} columns are named {name!r}; rename all but one")
