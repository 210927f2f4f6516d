"""Drafting without a model: after each token of a row at most one guess at the next, looked up on the host.

Knows the protocol of runners and where a row's source is; what is guessed, a ``Guesser`` knows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild.engine import make_runner
from bild.engine.runner import Runner
from bild.sources.base import DraftSource


class Guesser(Protocol):
    """What knows the text of one row."""

    def add(self, token: int) -> None:
        """The text goes on with this token."""

    def drop(self, count: int) -> None:
        """The last ``count`` tokens of the text are taken back."""

    def guess(self) -> int | None:
        """The token that comes next, None = nothing to propose."""


class GuessSource(DraftSource):
    """A draft source that looks its guesses up: a draft's distribution is one-hot, its step costs microseconds."""

    @abstractmethod
    def begin(self, source: Sequence[int]) -> Guesser:
        """A row with no text yet. ``source``: the token ids that an encoder reads; none where it reads no tokens, or
        where there is no encoder and the prompt is the beginning of the text."""

    def runners(
        self, large: PreTrainedModel, engine: str, max_length: int, listed: Tensor | None
    ) -> tuple[Runner, Runner]:
        return make_runner(large, engine, max_length), GuessRunner(large, self.begin)


class GuessRunner:
    """``Runner`` over a guesser per row. It lists nothing but what is guessed in this very call."""

    parted: frozenset[int] = frozenset()

    def __init__(self, large: PreTrainedModel, begin: Callable[[Sequence[int]], Guesser]) -> None:
        self._begin = begin
        self._has_encoder = large.config.is_encoder_decoder
        self._device = large.device
        self.vocab_size = int(large.get_output_embeddings().weight.shape[0])
        self.listed: Tensor = torch.zeros(1, dtype=torch.long, device=self._device)
        self.lengths: list[int] = []
        self._guessers: list[Guesser] = []

    def prefill(self, **encoder_inputs: Any) -> None:
        self._guessers, self.lengths = self._read(encoder_inputs)

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        for row, guesser, length in zip(rows, *self._read(encoder_inputs), strict=True):
            self._guessers[row], self.lengths[row] = guesser, length

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        guesses: list[tuple[int, int, int]] = []
        for row, (guesser, fed, width) in enumerate(zip(self._guessers, tokens.tolist(), widths, strict=True)):
            for column, token in enumerate(fed[:width]):
                guesser.add(token)
                guess = guesser.guess()
                if guess is not None and guess < self.vocab_size:
                    guesses.append((row, column, guess))
        self.lengths = [length + width for length, width in zip(self.lengths, widths, strict=True)]
        return self._one_hot(guesses, tokens.shape)

    def rollback(self, lengths: Sequence[int]) -> None:
        for guesser, length, kept in zip(self._guessers, self.lengths, lengths, strict=True):
            if kept < length:
                guesser.drop(length - kept)
        self.lengths = list(lengths)

    def _one_hot(self, guesses: Sequence[tuple[int, int, int]], shape: Sequence[int]) -> Tensor:
        """(B, W, V') logits of the guesses (row, column, token): 0 for each, -inf for everything else."""
        ids = sorted({token for _, _, token in guesses})
        place = {token: column for column, token in enumerate(ids)}
        logits = torch.full((*shape, max(1, len(ids))), -torch.inf)
        for row, column, token in guesses:
            logits[row, column, place[token]] = 0.0
        # Where nothing is guessed, some id must stand for all of them.
        self.listed = torch.tensor(ids if ids else [0], device=self._device)
        return logits.to(self._device)

    def _read(self, inputs: dict[str, Any]) -> tuple[list[Guesser], list[int]]:
        """A guesser for each row of the inputs, and how many of its tokens it has been told: of a prompt, padding
        included, all but the last."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None:
            rows = next(len(value) for value in inputs.values() if isinstance(value, Tensor))
            return [self._begin(()) for _ in range(rows)], [0] * rows
        counted = torch.ones_like(ids) if mask is None or mask.dim() != 2 else mask
        texts = [
            [token for token, counts in zip(*pair, strict=True) if counts]
            for pair in zip(ids.tolist(), counted.tolist(), strict=True)
        ]
        if self._has_encoder:
            return [self._begin(text) for text in texts], [0] * len(texts)
        guessers = [self._begin(()) for _ in texts]
        for guesser, text in zip(guessers, texts, strict=True):
            for token in text[:-1]:
                guesser.add(token)
        return guessers, [ids.shape[1] - 1] * len(texts)
