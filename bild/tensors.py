"""What the loop does to tensors and flags, apart from models and policies. B rows, W columns, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def where(flags: Sequence[bool]) -> list[int]:
    """The rows whose flag is set."""
    return [row for row, flag in enumerate(flags) if flag]


def sent(rows: Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers of Python as a tensor; to an accelerator in one transfer, which nobody waits for."""
    return torch.tensor(rows, dtype=dtype).to(device, non_blocking=True)


def columns_from(logits: Tensor, counted: Sequence[int], first: Sequence[int], width: int) -> Tensor:
    """(B, W, V) to (B, width, V): each row from its own ``first`` column on. Rows that are not ``counted`` may get
    anything, and so may columns beyond W."""
    if len(set(counted)) == 1 and counted[0] + width <= logits.shape[1]:
        return logits[:, counted[0] : counted[0] + width]
    columns = torch.tensor(first).unsqueeze(-1) + torch.arange(width)
    columns = columns.clamp(0, logits.shape[1] - 1).to(logits.device, non_blocking=True)
    return logits.gather(1, columns.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))


def spread(values: Tensor, ids: Tensor, vocab_size: int, otherwise: float = -torch.inf) -> Tensor:
    """(..., V') of the listed ids to (..., vocab_size), ``otherwise`` elsewhere."""
    everywhere = values.new_full((*values.shape[:-1], vocab_size), otherwise)
    return everywhere.index_copy_(-1, ids, values)


def at(values: Tensor, columns: Tensor) -> Tensor:
    """(B, W, ...) values and (B,) columns to (B, ...) those of each row's column."""
    return values[torch.arange(len(columns), device=columns.device), columns]


def fit_vocabulary(logits: Tensor, vocab_size: int) -> Tensor:
    """(..., V) to (..., vocab_size): ids that a narrower head lacks get probability zero, surplus ones are dropped."""
    missing = vocab_size - logits.shape[-1]
    if missing > 0:
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
    return logits[..., :vocab_size] if missing < 0 else logits


def unfolded(logits: Tensor, ids: Tensor | None, vocab_size: int) -> Tensor:
    """A model's logits as scores hold them: at least float32, and over the vocabulary unless they are of listed ids."""
    raw = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return raw if ids is not None else fit_vocabulary(raw, vocab_size)


def to_host(*values: Tensor | None) -> list[Any]:
    """Tensors as nested lists, None as it is; on an accelerator all of them in one transfer."""
    tensors = [value for value in values if value is not None]
    if tensors[0].device.type == "cpu":
        return [None if value is None else value.tolist() for value in values]
    # float64 holds every token id exactly.
    together = torch.cat([value.flatten().double() for value in tensors]).cpu()
    parts = iter(torch.split(together, [value.numel() for value in tensors]))
    return [None if one is None else next(parts).to(one.dtype).view(one.shape).tolist() for one in values]
