"""What every contestant looks like, and the one way in which tokens are counted for all. Knows no model's inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

import bild

BASELINE = "transformers generate"
"""The method that all others are compared with."""

Batch = tuple[Tensor, Tensor]
"""(B, S) source ids and their mask, on the models' device."""


@dataclass(frozen=True)
class Decoded:
    """What a method wrote."""

    tokens: list[list[int]]
    """per row, EOS included, start and padding not"""
    stats: list[bild.RowStats] | None = None
    """per row; None from peers"""


class Method(Protocol):
    """One contestant. Greedy, and stateless from call to call."""

    name: str
    """unique in a run, for people"""

    def decode(self, batch: Batch, max_new_tokens: int) -> Decoded:
        """Write up to ``max_new_tokens`` tokens for every row."""

    def seconds(self, batch: Batch, max_new_tokens: int, written: int) -> tuple[float, float]:
        """Time of ``decode`` in all, and the encoders' part of it. ``written``: tokens of the longest row it writes."""


def written(sequences: Tensor, model: PreTrainedModel) -> list[list[int]]:
    """(B, T) with one start token to what each row wrote, up to its first EOS."""
    eos = eos_ids(model)
    return [upto_eos(row[1:], eos) for row in sequences.tolist()]


def eos_ids(model: PreTrainedModel) -> set[int]:
    """The ids that end a row; none if it only ends by its length."""
    eos = model.generation_config.eos_token_id
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)


def upto_eos(tokens: Sequence[int], eos: set[int]) -> list[int]:
    """The tokens up to the first EOS, and it."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in eos), len(tokens))
    return list(tokens[:end])


def pad(sources: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids to (B, S) ids and attention mask."""
    ids = torch.full((len(sources), max(map(len, sources))), pad_id)
    mask = torch.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source)
        mask[row, : len(source)] = 1
    return ids.to(device), mask.to(device)
