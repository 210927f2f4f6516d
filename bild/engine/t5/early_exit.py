"""A T5 and its own first layers as large and small model: what the draft has computed is not computed again.

The small model's keys and values are those of the large one's first layers, and what these layers make of each token is
kept, so that the large model's pass begins above them for every token that the draft has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.state import Step, T5State


def t5_early_exit(decoder: T5Decoder, state: T5State, exit_layer: int, listed: Tensor | None) -> tuple[_Large, _Small]:
    """Runners of the whole decoder and of its first ``exit_layer`` layers, each with the one head; of the latter only
    the logits of the ``listed`` ids (V',) are wanted, None = all.

    Both must be shown the same texts, and told alike where a text has changed: what the upper layers have read of a row
    is a prefix of what the lower ones have, and what either is shown next goes on from there. The large runner reads
    for both, so the small one's length grows with it. ``extend`` raises ValueError on anything else.
    """
    shared = _Shared(decoder, state, exit_layer, listed)
    return _Large(shared, None), _Small(shared, listed)


class _Shared:
    """Rows that two depths of one decoder have read, each up to its own length."""

    def __init__(self, decoder: T5Decoder, state: T5State, exit_layer: int, listed: Tensor | None) -> None:
        self.decoder = decoder
        self.state = state
        self._lower = range(exit_layer)
        self._upper = range(exit_layer, len(decoder.layers))
        self._kept: Tensor | None = None
        self._lower_head, self._head = decoder.head(listed), decoder.head(None)
        self.lower: list[int] = []
        """tokens of each row that the lower layers have read; no fewer than ``upper``"""
        self.upper: list[int] = []
        """tokens of each row that all layers have read"""
        self._texts: list[list[int]] = []
        """what the lower layers have read; beyond ``lower`` what was taken back"""

    def prefill(self, encoder_inputs: dict[str, Any]) -> None:
        rows = self.state.prefill(encoder_inputs)
        self.lower, self.upper, self._kept = [0] * rows, [0] * rows, None
        self._texts = [[] for _ in range(rows)]

    def restart(self, rows: Sequence[int], encoder_inputs: dict[str, Any]) -> None:
        self.state.restart(rows, encoder_inputs)
        for row in rows:
            self.lower[row] = self.upper[row] = 0

    def read(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        """Each row's first ``widths`` of (B, W) ``tokens`` through the lower layers. (B, W, V') logits there."""
        self._check_ahead(widths)
        step, hidden = self._read(tokens, widths)
        return step.block.spread(self._lower_head(self.decoder.ready_for_head(hidden)))

    def verify(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        """Each row's first ``widths`` of (B, W) ``tokens`` through the upper layers, and through the lower ones those
        that they have not read. (B, W, V) logits at the top."""
        self._check_ahead(widths)
        self._check_alike(tokens.tolist(), widths)
        known = [max(0, lower - upper) for lower, upper in zip(self.lower, self.upper, strict=True)]
        unread = [max(0, width - seen) for width, seen in zip(widths, known, strict=True)]
        if any(unread):
            columns = torch.tensor(known, device=tokens.device).unsqueeze(-1)
            columns = columns + torch.arange(max(unread), device=tokens.device)
            self._read(tokens.gather(1, columns.clamp(max=tokens.shape[1] - 1)), unread)
        step = self.state.step(tokens, self.upper, widths)
        assert self._kept is not None  # the lower layers have read what is asked for
        hidden = self.state.run(self._kept.index_select(0, step.slots), step, self._upper)
        self.upper = [length + width for length, width in zip(self.upper, widths, strict=True)]
        return step.block.spread(self._head(self.decoder.ready_for_head(hidden)))

    def _check_alike(self, tokens: list[list[int]], widths: Sequence[int]) -> None:
        """What the upper layers are shown is what the lower ones have read there."""
        for row, (fed, width) in enumerate(zip(tokens, widths, strict=True)):
            read = self._texts[row][self.upper[row] : self.lower[row]][:width]
            if read != fed[: len(read)]:
                raise ValueError(
                    f"row {row}: after {self.upper[row]} tokens the large model is shown others than the small one has "
                    "read; roll both back to where a text changes"
                )

    def _check_ahead(self, widths: Sequence[int]) -> None:
        """The lower layers have read what the upper ones have."""
        for row, (lower, upper, width) in enumerate(zip(self.lower, self.upper, widths, strict=True)):
            if width > 0 and lower < upper:
                raise ValueError(
                    f"row {row}: the small model stands at {lower} tokens and the large one, which reads through it, "
                    f"at {upper}; roll both back"
                )

    def _read(self, tokens: Tensor, widths: Sequence[int]) -> tuple[Step, Tensor]:
        step = self.state.step(tokens, self.lower, widths)
        for text, length, fed, width in zip(self._texts, self.lower, tokens.tolist(), widths, strict=True):
            text[length:] = fed[:width]
        hidden = self.state.run(self.state.embed(step), step, self._lower)
        if self._kept is None:
            self._kept = hidden.new_empty(self.state.slots, hidden.shape[-1])
        self._kept.index_copy_(0, step.slots, hidden)
        self.lower = [length + width for length, width in zip(self.lower, widths, strict=True)]
        return step, hidden


class _Depth:
    """What the two runners have in common."""

    parted: frozenset[int] = frozenset()

    def __init__(self, shared: _Shared, listed: Tensor | None) -> None:
        self._shared = shared
        self.listed = listed

    @property
    def vocab_size(self) -> int:
        return self._shared.decoder.vocab_size


class _Large(_Depth):
    """``Runner`` over all layers. It reads the sources, for both."""

    @property
    def lengths(self) -> list[int]:
        return self._shared.upper

    def prefill(self, **encoder_inputs: Any) -> None:
        self._shared.prefill(encoder_inputs)

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        self._shared.restart(rows, encoder_inputs)

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        return self._shared.verify(tokens, widths)

    def rollback(self, lengths: Sequence[int]) -> None:
        self._shared.upper = list(lengths)


class _Small(_Depth):
    """``Runner`` over the lower layers, of the sources that the large one has read."""

    @property
    def lengths(self) -> list[int]:
        return self._shared.lower

    def prefill(self, **encoder_inputs: Any) -> None:
        """The large model's runner has done it."""

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        """The large model's runner has done it."""

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        return self._shared.read(tokens, widths)

    def rollback(self, lengths: Sequence[int]) -> None:
        self._shared.lower = list(lengths)
