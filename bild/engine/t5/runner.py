"""``Runner`` over a T5: every row stands at its own length, and a rollback moves no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.state import T5State


class T5Runner:
    """``Runner`` over the rows of a ``T5State``. ``listed``: the ids that logits are wanted of, None = all."""

    parted: frozenset[int] = frozenset()

    def __init__(self, decoder: T5Decoder, state: T5State, listed: Tensor | None) -> None:
        self._decoder = decoder
        self._state = state
        self._head = decoder.head(listed)
        self.listed = listed
        self.vocab_size = decoder.vocab_size
        self.lengths: list[int] = []

    def prefill(self, **encoder_inputs: Any) -> None:
        self.lengths = [0] * self._state.prefill(encoder_inputs)

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        self._state.restart(rows, encoder_inputs)
        for row in rows:
            self.lengths[row] = 0

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        step = self._state.step(tokens, self.lengths, widths)
        hidden = self._state.run(self._state.embed(step), step, self._decoder.all_layers)
        self.lengths = [length + width for length, width in zip(self.lengths, widths, strict=True)]
        return step.block.spread(self._head(self._decoder.ready_for_head(hidden)))

    def rollback(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
