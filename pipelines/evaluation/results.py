"""A result on disk: one JSON file a run and a Parquet file of its examples. results/README.md documents both.

Knows names, files and their schema; the numbers come from ``measures``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from pipelines.cli import UserError, first_line
from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.store import STATS, write_table
from pipelines.evaluation.timings import Timing
from pipelines.files import finite, write_json

SCHEMA = 1
KIND = "evaluation"
SHOWN_BY = {
    KIND: "python -m pipelines.report",
    "analysis": "python -m pipelines.analyze in an .html beside it",
    "comparison": "python -m pipelines.compare in an .html beside it",
    "training": "python -m pipelines.finetune at its end",
    "alignment": "python -m pipelines.align at its end",
    "calibration": "python -m pipelines.calibrate at its end",
    "coverage": "python -m pipelines.calibrate at its end",
    "benchmark": "python -m benchmarks.table",
}
"""what shows each kind of file, for those who give it to another command"""
NAME_BYTES = 200  # of a result's name, suffixes and what a temporary file adds not counted
SECTIONS = ("name", "label", "task", "models", "policy", "decoding", "run", "methods", "cost_ratio", "provenance")

PIECES = pa.list_(
    pa.struct(
        [
            ("token_id", pa.int32()),
            ("piece", pa.string()),
            ("model", pa.string()),
            ("round", pa.int32()),
            ("confidence", pa.float32()),
            ("reason", pa.string()),
        ]
    )
)
ROWS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("method", pa.string()),
        ("source", pa.string()),
        ("reference", pa.string()),
        ("text", pa.string()),
        ("same_as_large", pa.bool_()),
        *((name, pa.int64()) for name in STATS),
        ("milliseconds", pa.float64()),
        ("encoder_milliseconds", pa.float64()),
        ("trace", PIECES),
    ]
)


class OtherKindError(UserError):
    """A file that may lie beside results and is none."""


@dataclass(frozen=True)
class Result:
    """A result as read from its file."""

    path: Path
    content: dict[str, Any]

    @property
    def rows_path(self) -> Path:
        """The Parquet file beside it."""
        return self.path.with_suffix(".parquet")

    def method(self, name: str) -> dict[str, Any]:
        """The entry of "large", "small" or "policy"; where the policy is one of the baselines, that one."""
        methods = {entry["method"]: entry for entry in self.content["methods"]}
        return methods[self.content["run"]["policy_method"] if name == "policy" else name]


def policy_fields(policy: object) -> dict[str, Any]:
    """A policy as JSON-like values: its name, then its fields; an infinite number becomes "inf"."""
    return finite({"name": type(policy).__name__, **asdict(policy)})


def policy_label(policy: object) -> str:
    """For people: name, thresholds, and whatever else differs from its default."""
    return " ".join([type(policy).__name__, *(f"{name}={value}" for name, value in _telling_fields(policy))])


def policy_summary(policy: object) -> str:
    """For people, what it does: the first paragraph of its class's docstring."""
    told = inspect.getdoc(type(policy))
    return "" if told is None else " ".join(told.partition("\n\n")[0].split())


def file_name(split: str, models: Mapping[str, str], policy: object, extras: Mapping[str, Any]) -> str:
    """The name of a result, without suffix: everything that a sweep or a second run may vary.

    Args:
        split: of the task.
        models: names of the models, large first.
        policy: its name and fields enter.
        extras: further settings that differ from their defaults, by name.
    """
    words = [split, *models.values(), type(policy).__name__]
    words += [f"{name}{value}" for name, value in (*_telling_fields(policy), *extras.items())]
    return joined_name(words)


def joined_name(words: Sequence[str]) -> str:
    """Words as the name of a file, cut where file systems would refuse it."""
    name = re.sub(r"[^\w.+-]+", "_", "-".join(words))
    if len(name.encode()) <= NAME_BYTES:
        return name
    # The hash tells apart what was cut off.
    kept = name.encode()[:NAME_BYTES].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write(content: dict[str, Any], rows: pa.Table, folder: Path) -> Result:
    """Write ``folder/{name}.parquet`` and then ``folder/{name}.json``; a JSON file thus never lacks its rows."""
    path = folder / f"{content['name']}.json"
    missing = [section for section in SECTIONS if section not in content]
    if missing:
        raise ValueError(f"a result lacks {', '.join(missing)}")
    result = Result(path, {"schema": SCHEMA, "kind": KIND, **content})
    write_table(rows, result.rows_path)
    write_json(result.content, path)
    return result


def read(path: Path) -> Result:
    """Read one result. Raises what ``read_content`` does."""
    return Result(path, read_content(path, KIND, SECTIONS, "evaluate"))


def read_content(path: Path, kind: str, sections: Sequence[str], command: str) -> dict[str, Any]:
    """Read the JSON that a command of this package wrote.

    Args:
        kind: of the file, such as "evaluation".
        sections: that it must have.
        command: to be named in the remedy.

    Raises:
        OtherKindError: JSON of another kind or schema.
        UserError: not there, not JSON, or not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a result that {command} wrote") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); give a result that {command} wrote") from error
    if not isinstance(content, dict) or (content.get("schema"), content.get("kind")) != (SCHEMA, kind):
        raise OtherKindError(f"{path}: is not an {kind} of schema {SCHEMA}{_instead(content, kind, command)}")
    missing = [section for section in sections if section not in content]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; {command} again, or remove the file")
    return content


def _instead(content: object, kind: str, command: str) -> str:
    """Of a file that is not of this kind, what it is and what shows it, or how to get one that is."""
    other = str(content.get("kind")) if isinstance(content, dict) else kind
    if other == kind or other not in SHOWN_BY:
        return f"; {command} again to get one"
    return f" but of kind {other}, shown by {SHOWN_BY[other]}"


def shown_path(path: Path) -> str:
    """A path as seen from here if it lies below, else as it is."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown


def find(paths: Sequence[Path]) -> list[Result]:
    """The results among files and folders (not deeper), each once, those of a folder sorted by name.

    Raises:
        UserError: nothing there, or no result in a folder.
    """
    found: dict[Path, Result] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: does not exist; give a result's JSON file or a folder of them")
        inside = _in_folder(path) if path.is_dir() else [read(path)]
        found |= {result.path.resolve(): result for result in inside}
    return list(found.values())


def _in_folder(folder: Path) -> list[Result]:
    """A folder may hold other reports too, such as those of alignments."""
    found = []
    for file in sorted(folder.glob("*.json")):
        with suppress(OtherKindError):
            found.append(read(file))
    if not found:
        raise UserError(f"{folder}: holds no evaluation; give the folder of a task, or evaluate first")
    return found


def read_rows(result: Result) -> list[dict[str, Any]]:
    """The examples of a result, one record per example and method, as in ``ROWS_SCHEMA``."""
    path = result.rows_path
    if not path.exists():
        raise UserError(f"{path}: is not there, but a report shows examples; copy it beside {result.path.name}")
    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); evaluate again") from error


def rows_table(
    texts: Sequence[tuple[str, str]],
    decoded: Mapping[str, Sequence[DecodedRow]],
    timings: Mapping[str, Sequence[Timing]],
    tokenizer: PreTrainedTokenizerBase,
) -> pa.Table:
    """Every example of every method.

    Args:
        texts: (source, reference) per example.
        decoded: by method, "large" among them.
        timings: by method, of the timed examples.
        tokenizer: turns token ids into readable pieces.
    """
    pieces = Pieces(tokenizer)
    tables = []
    for method, rows in decoded.items():
        records = []
        timed = {timing.row: timing for timing in timings[method]}
        for index, (row, (source, reference)) in enumerate(zip(rows, texts, strict=True)):
            timing = timed.get(index)
            records.append(
                {
                    "row": index,
                    "method": method,
                    "source": source,
                    "reference": reference,
                    "text": row.text,
                    "same_as_large": row.tokens == decoded["large"][index].tokens,
                    **asdict(row.stats),
                    "milliseconds": None if timing is None else timing.milliseconds,
                    "encoder_milliseconds": None if timing is None else timing.encoder_milliseconds,
                    "trace": [{"piece": pieces(token.token_id), **asdict(token)} for token in row.trace],
                }
            )
        tables.append(pa.Table.from_pylist(records, schema=ROWS_SCHEMA))
    return pa.concat_tables(tables)


class Pieces:
    """Token ids to the text that each adds: " der", "ing", "</s>"; a byte of a character stays "<0xC3>"."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        # A leading space shows only behind another token.
        self._anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._before = self._decode(self._anchor)

    def __call__(self, token_id: int) -> str:
        if token_id not in self._known:
            self._known[token_id] = self._piece(token_id)
        return self._known[token_id]

    def _piece(self, token_id: int) -> str:
        raw = self._tokenizer.convert_ids_to_tokens(token_id)
        if raw is None:
            return f"<{token_id}>"
        if token_id in self._tokenizer.all_special_ids or re.fullmatch(r"<0x[0-9A-F]{2}>", raw):
            return raw
        return self._decode([*self._anchor, token_id]).removeprefix(self._before)

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def _telling_fields(policy: object) -> list[tuple[str, str]]:
    """Thresholds always, and what the policy itself wants told; other fields where they differ from their default."""
    told = []
    for field in fields(policy):
        value = getattr(policy, field.name)
        # A threshold may be given as a whole number.
        if isinstance(value, float) or (isinstance(field.default, float) and value is not None):
            told.append((field.name, f"{value:g}"))
        elif value != field.default or field.metadata.get("told", False):
            told.append((field.name, str(value)))
    return told
