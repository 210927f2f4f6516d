"""Both models on every position of given outputs, teacher-forced: one pass over a split, kept chunk by chunk.

Knows a decoder and token ids; knows nothing about what is made of the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import torch
from torch import Tensor

from bild.api import Call
from bild.engine.runner import Runner
from bild.processors import process
from bild.tensors import fit_vocabulary, spread
from bild.types import Scores
from pipelines.decoding.decode import BatchDecoder
from pipelines.decoding.runners import open_runners
from pipelines.decoding.store import Format

SCORING = 1  # raised whenever ``score`` computes something else
BUDGET = 2**24  # logits scored at once (64 MB in float32, of which there are a few at a time)


@dataclass(frozen=True)
class Positions:
    """One output, position by position. p is the large model's distribution, q that of what drafts (a guess is
    one-hot); *tempered* is what tokens are drawn from (one-hot when greedy), *plain* the softmax of the logits."""

    overlap: list[float]
    """sum over tokens of min(p, q), tempered: the chance that a drafted token is accepted there"""
    plain_overlap: list[float]
    """the same of the plain distributions"""
    kept: list[float]
    """min(1, q / p) of the token that was written, tempered: the chance that it is accepted if it is drafted"""
    agrees: list[float]
    """1 where both models' most probable token is the same, else 0"""
    confidence: list[float]
    """the small model's largest plain probability"""
    right: list[float]
    """tempered p of the small model's most probable token: the chance that the large model would write it"""


FIELDS = tuple(field.name for field in fields(Positions))
FORMAT = Format(
    pa.schema([("row", pa.int64()), *((name, pa.list_(pa.float32())) for name in FIELDS)]),
    lambda row, positions: {"row": row, **asdict(positions)},
    lambda record: Positions(**{name: record[name] for name in FIELDS}),
)


@torch.inference_mode()
def score(decoder: BatchDecoder, inputs: Sequence[list[int]], outputs: Sequence[list[int]]) -> list[Positions]:
    """Score one batch: B sources and what was written for them (token ids, EOS included, without the start token).

    Raises:
        UserError: what the decoder finds wrong with models or input.
    """
    call, runners = open_runners(decoder, inputs, max(map(len, outputs)))
    written, counts = decoder.pad(outputs)
    tokens = torch.cat([call.prompt, written], dim=1)
    width = call.prompt.shape[1]
    for runner in runners.values():  # up to the token before the first that was written
        known = runner.lengths[0]
        if known < width - 1:
            runner.extend(tokens[:, known : width - 1], [width - 1 - known] * len(tokens))
    vocabulary = runners["large"].vocab_size
    step = max(1, BUDGET // (len(tokens) * vocabulary))
    found = []
    for start in range(width - 1, tokens.shape[1] - 1, step):
        fed = tokens[:, start : min(start + step, tokens.shape[1] - 1)]
        views = {role: _scores(_read(runner, fed, vocabulary), call, tokens, start) for role, runner in runners.items()}
        found.append(compare(views["large"], views["small"], tokens[:, start + 1 : start + 1 + fed.shape[1]]))
    by_row = torch.cat(found, dim=1).cpu()
    lengths = counts.sum(1).tolist()
    return [Positions(*one[:length].T.tolist()) for one, length in zip(by_row, lengths, strict=True)]


def compare(large: Scores, small: Scores, written: Tensor) -> Tensor:
    """Scores of (B, W) positions and the (B, W) tokens written there to (B, W, 6), in the order of ``FIELDS``. Where a
    draft source has nothing to propose all of them are 0: nothing is accepted there."""
    top = small.processed.argmax(-1)
    p, q = (_of(scores.tempered, written) for scores in (large, small))
    columns = [
        torch.minimum(large.tempered, small.tempered).sum(-1),
        torch.minimum(large.plain, small.plain).sum(-1),
        # A token that has no probability here was written by rounding alone: 0 / 0 is 0, and q / 0 is 1.
        (q / p).nan_to_num(0.0).clamp(max=1),
        (large.processed.argmax(-1) == top).to(p.dtype),
        small.confidence,
        _of(large.tempered, top),
    ]
    silent = (small.processed == -torch.inf).all(-1, keepdim=True)
    return torch.stack(columns, dim=-1).masked_fill(silent, 0.0)


def _of(probs: Tensor, tokens: Tensor) -> Tensor:
    return probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _read(runner: Runner, fed: Tensor, vocabulary: int) -> Tensor:
    """(B, W, V) logits over the large model's vocabulary of what follows each of the (B, W) tokens."""
    logits = runner.extend(fed, [fed.shape[1]] * len(fed))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    listed = runner.listed
    return fit_vocabulary(logits, vocabulary) if listed is None else spread(logits, listed, vocabulary)


def _scores(raw: Tensor, call: Call, tokens: Tensor, start: int) -> Scores:
    """What follows each of the (B, W) tokens from column ``start`` on, seen as the round loop sees it."""
    first = torch.full((len(raw),), start + 1, device=raw.device)
    processed = process(call.logits_processor, raw, tokens, first, torch.full_like(first, raw.shape[1]))
    return Scores(raw=raw, processed=processed, sampler=call.sampler)
