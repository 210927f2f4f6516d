"""What a call asks for, and what has been written of it so far. Knows no model and no policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from bild.sampling import RowStreams, Sampler


@dataclass(frozen=True)
class Request:
    """What to decode, apart from models and policy."""

    prompt: Tensor
    """(B, P) int64 decoder start tokens (or prompts)"""
    max_new_tokens: int
    """tokens written per row at most"""
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    sampler: Sampler
    streams: RowStreams | None
    """None when greedy"""
    processors: LogitsProcessorList
    stopping_criteria: StoppingCriteriaList
    on_settled: Callable[[Tensor], None] | None = None
    """called after each round with the (N,) tokens that it settled in row 0; for streaming a batch of one"""


class Rows:
    """What has been written. B rows of at most T tokens."""

    def __init__(self, request: Request) -> None:
        prompt = request.prompt
        batch_size, prompt_length = prompt.shape
        self.limit = prompt_length + request.max_new_tokens
        self.tokens = torch.full((batch_size, self.limit), request.pad_token_id, dtype=torch.long, device=prompt.device)
        """(B, T) int64; beyond ``lengths`` only leftovers of discarded drafts"""
        self.tokens[:, :prompt_length] = prompt
        self.lengths = torch.full((batch_size,), prompt_length, device=prompt.device)
        """(B,) int64 tokens that stand, the draft of the running round included"""
        self.is_open = torch.ones(batch_size, dtype=torch.bool, device=prompt.device)
        """(B,) bool"""
        self._eos = torch.tensor(request.eos_token_ids, dtype=torch.long, device=prompt.device)

    def write(self, tokens: Tensor, where: Tensor) -> None:
        """Append one of the (B,) tokens to each row of the (B,) bool mask."""
        rows = where.nonzero().squeeze(-1)
        self.tokens[rows, self.lengths[rows]] = tokens[rows]
        self.lengths = self.lengths + where

    def last(self) -> Tensor:
        """(B,) the last token that stands."""
        return self.tokens.gather(1, (self.lengths - 1).unsqueeze(-1)).squeeze(-1)

    def is_eos(self, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, self._eos)

    def span(self, start: Tensor, width: int) -> Tensor:
        """(B, width) tokens from (B,) ``start`` on; places beyond the limit repeat its last token."""
        columns = start.unsqueeze(-1) + torch.arange(width, device=start.device)
        return self.tokens.gather(1, columns.clamp(max=self.limit - 1))
