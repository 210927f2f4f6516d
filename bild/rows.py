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
    """called with the (N,) tokens of row 0 that have become final, N > 0; for streaming a batch of one"""


class Rows:
    """What has been written: B rows, kept on the host, where the loop decides about each of them."""

    def __init__(self, request: Request) -> None:
        self._device = request.prompt.device
        self._pad = request.pad_token_id
        self._eos = frozenset(request.eos_token_ids)
        self._criteria = request.stopping_criteria
        self.limit = request.prompt.shape[1] + request.max_new_tokens
        """tokens of a row at most, prompt included"""
        self.tokens: list[list[int]] = request.prompt.tolist()
        """of each row, the draft of the running round included"""
        self.is_open = [True] * len(self.tokens)
        self.names = list(range(len(self.tokens)))
        """the numbers that messages call them by"""
        self._on_settled = request.on_settled
        self._n_shown = request.prompt.shape[1]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, prompt included."""
        return [len(row) for row in self.tokens]

    def reopen(self, row: int, name: int, prompt: list[int]) -> None:
        """Begin anew in a row, with another name."""
        self.tokens[row], self.names[row], self.is_open[row] = prompt, name, True

    def meets_criteria(self, row: int, start: int) -> bool:
        """Whether a stopping criterion ends the row at a token from ``start`` on; it is cut after that one."""
        tokens = self.tokens[row]
        if len(self._criteria) == 0:
            return False
        for length in range(start + 1, len(tokens) + 1):
            if bool(self._criteria(torch.tensor([tokens[:length]], device=self._device), None).any()):
                del tokens[length:]
                return True
        return False

    def is_eos(self, token: int) -> bool:
        return token in self._eos

    def show(self) -> None:
        """Tell who listens what row 0 has got since they were told last. All that it holds must be final."""
        new = self.tokens[0][self._n_shown :]
        if self._on_settled is not None and new:
            self._n_shown += len(new)
            self._on_settled(torch.tensor(new, dtype=torch.long, device=self._device))

    def tensor(self) -> Tensor:
        """(B, T) int64: all rows, padded on the right."""
        longest = max(self.lengths)
        padded = [row + [self._pad] * (longest - len(row)) for row in self.tokens]
        return torch.tensor(padded, dtype=torch.long, device=self._device)
