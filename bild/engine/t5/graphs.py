"""``Runner`` over a T5 whose steps are recorded and replayed, a whole draft turn at once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bild.engine.runner import Asked
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.fixed import FixedCaches, Head, Size
from bild.engine.t5.source import SourceReader


class GraphRunner:
    """``DraftRunner`` over ``layers`` of a T5's decoder, the first ones, for rows of at most ``longest`` tokens.
    ``listed``: the ids that logits are wanted of, None = all."""

    parted: frozenset[int] = frozenset()

    def __init__(
        self, reader: SourceReader, decoder: T5Decoder, longest: int, listed: Tensor | None, layers: range
    ) -> None:
        self._reader = reader
        self._decoder = decoder
        self._longest = longest
        self._layers = layers
        self._capturer = decoder.shelf.capturer(decoder.embedding.device)
        self._head = Head(decoder.head(listed), listed, decoder.vocab_size if listed is None else len(listed))
        self.listed = listed
        self.vocab_size = decoder.vocab_size
        self.lengths: list[int] = []
        self._lent: tuple[FixedCaches, weakref.finalize[..., GraphRunner]] | None = None
        """buffers in use, and what gives them back, at the latest when this runner goes"""

    def prefill(self, **encoder_inputs: Any) -> None:
        joined, valid = self._reader.read(encoder_inputs, self._layers)
        self._use(Size.of(len(valid), self._longest, valid.shape[1], self._layers))
        self._held.hold(torch.arange(len(valid), device=valid.device), joined, valid)
        self.lengths = [0] * len(valid)

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        joined, valid = self._reader.read(encoder_inputs, self._layers)
        before = self._held
        needed = Size.of(before.size.rows, self._longest, valid.shape[1], self._layers)
        if needed.source > before.size.source:
            self._use(needed).take_over(before)
        self._held.hold(torch.tensor(rows, device=valid.device), joined, valid)
        for row in rows:
            self.lengths[row] = 0

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        grown = self._grown(widths)
        logits = self._held.extend(tokens, self.lengths, self._head)
        self.lengths = grown
        return logits

    def draft(self, tokens: Tensor, widths: Sequence[int], asked: Asked) -> tuple[Tensor, list[Any]]:
        self._grown(widths)
        said = self._held.draft(tokens, self.lengths, widths, asked, self._head)
        # A draft may go on beyond the end of its row, where nothing is kept.
        self.lengths = [
            min(length + width + asked.steps - 1, self._longest) if width > 0 else length
            for length, width in zip(self.lengths, widths, strict=True)
        ]
        return said

    def rollback(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)

    def _grown(self, widths: Sequence[int]) -> list[int]:
        """The lengths that come of these widths. Raises ValueError where there is no room for them."""
        grown = [length + width for length, width in zip(self.lengths, widths, strict=True)]
        if max(grown) > self._longest:
            raise ValueError(f"the cache holds {self._longest} tokens a row, {max(grown)} are needed")
        return grown

    @property
    def _held(self) -> FixedCaches:
        if self._lent is None:
            raise RuntimeError("there are no rows yet: prefill comes first")
        return self._lent[0]

    def _use(self, size: Size) -> FixedCaches:
        """Take buffers of this size, with nothing of the last call in them, in exchange for those in use."""
        if self._lent is not None:
            self._lent[1]()
        shelf = self._decoder.shelf
        caches = shelf.take(size, lambda: FixedCaches(self._decoder, size, self._capturer))
        caches.clear()
        give_back = weakref.finalize(self, shelf.put, caches)
        give_back.atexit = False
        self._lent = caches, give_back
        return caches
