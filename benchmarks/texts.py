"""JSON lines of sources and targets, and what outputs are worth against them. Knows tokenizers; knows no decoder."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.errors import UserError


@dataclass(frozen=True)
class Text:
    """One row: what goes in, and what a person wrote for it (None where the file has no targets)."""

    source: str
    target: str | None


def read_texts(path: Path, source: str, target: str | None, limit: int | None) -> list[Text]:
    """The first ``limit`` rows of a .jsonl or .jsonl.gz file. ``source`` and ``target`` name fields, with points
    between the names of nested ones ("translation.de"). Raises UserError on a row that has none."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            lines = [line for line, _ in zip(file, range(2**62 if limit is None else limit), strict=False)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a .jsonl or .jsonl.gz file") from error
    if not lines:
        raise UserError(f"{path}: no rows; give a file with one JSON object a line")
    return [_text(line, f"{path}, line {number}", source, target) for number, line in enumerate(lines, start=1)]


def _text(line: str, where: str, source: str, target: str | None) -> Text:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON; give a file with one JSON object a line") from error
    return Text(_field(row, source, where), None if target is None else _field(row, target, where))


def _field(row: Any, name: str, where: str) -> str:
    value = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, str):
        fields = ", ".join(row) if isinstance(row, dict) else "none"
        raise UserError(f"{where}: no text in the field {name!r}; it has the fields: {fields}")
    return value


def fingerprint(texts: Sequence[Text]) -> str:
    """SHA-256 of what was decoded."""
    return hashlib.sha256(json.dumps([[text.source, text.target] for text in texts]).encode()).hexdigest()


def bleu(rows: Sequence[Sequence[int]], texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> float | None:
    """sacreBLEU's default; None without targets or without sacrebleu."""
    references = [text.target for text in texts]
    try:
        import sacrebleu
    except ImportError:
        return None
    if None in references:
        return None
    outputs = tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)
    return float(sacrebleu.corpus_bleu(outputs, [references]).score)


@torch.no_grad()
def margin(model: PreTrainedModel, batch: tuple[Tensor, Tensor], row: Sequence[int], other: Sequence[int]) -> float:
    """How sure ``model`` is where two outputs for one source part: nats between its first and second choice there."""
    ids, mask = batch
    same = next((place for place, pair in enumerate(zip(row, other, strict=False)) if pair[0] != pair[1]), None)
    prefix = list(row[: min(len(row), len(other)) if same is None else same])
    start = model.generation_config.decoder_start_token_id
    decoder_ids = torch.tensor([[start, *prefix]], device=ids.device)
    logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids).logits[0, -1].float()
    first, second = logits.topk(2).values.tolist()
    return float(first - second)
