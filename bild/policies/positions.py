"""Columns of a draft: which of them hold tokens, and which is the first of a kind. B rows, K drafted tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from bild.types import Draft


def is_drafted(draft: Draft) -> Tensor:
    """(B, K) bool: the columns that hold drafted tokens."""
    columns = torch.arange(draft.tokens.shape[1], device=draft.tokens.device)
    return columns < draft.n_drafted.unsqueeze(-1)


def first_true(flags: Tensor, otherwise: Tensor) -> Tensor:
    """(B, K) bool to (B,) int64: the first true column, ``otherwise`` (B,) where there is none."""
    if flags.shape[1] == 0:
        return otherwise
    return torch.where(flags.any(-1), flags.int().argmax(-1), otherwise)


def drafted_probs(draft: Draft, probs: Tensor) -> Tensor:
    """(B, W, V) probabilities to (B, K) those of the drafted tokens."""
    return probs[:, : draft.tokens.shape[1]].gather(-1, draft.tokens.unsqueeze(-1)).squeeze(-1)
