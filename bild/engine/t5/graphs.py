"""``Runner`` over a T5 whose steps are recorded and replayed, a whole draft turn at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
        (rows, width), give = self._sources(encoder_inputs)
        self._use(Size.of(rows, self._longest, width, self._layers))
        give(range(rows))
        self.lengths = [0] * rows

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        (_, width), give = self._sources(encoder_inputs)
        before = self._held
        needed = Size.of(before.size.rows, self._longest, width, self._layers)
        if needed.source > before.size.source:
            self._use(needed).take_over(before)
        give(rows)
        for row in rows:
            self.lengths[row] = 0

    def _sources(self, encoder_inputs: dict[str, Any]) -> tuple[Sequence[int], Callable[[Sequence[int]], None]]:
        """(N, S), and what gives so many sources to rows of the buffers that are then in use."""
        encoder = self._reader.encoder_of(encoder_inputs)
        if encoder is not None:
            ids, mask = encoder_inputs["input_ids"], encoder_inputs.get("attention_mask")
            return ids.shape, lambda rows: self._held.read(rows, ids, mask, encoder)
        joined, valid = self._reader.read(encoder_inputs, self._layers)
        return valid.shape, lambda rows: self._held.hold(rows, joined, valid)

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

    def get_ready(self, widths: Iterable[int], drafts: Iterable[tuple[int, Asked]]) -> None:
        self._held.get_ready(widths, drafts, self._head)

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


class LowerGraphRunner(GraphRunner):
    """``GraphRunner`` over the first layers of a decoder, of the sources that the runner of all ``whole`` layers has
    just read."""

    def __init__(
        self,
        whole: GraphRunner,
        reader: SourceReader,
        decoder: T5Decoder,
        longest: int,
        listed: Tensor | None,
        layers: range,
    ) -> None:
        super().__init__(reader, decoder, longest, listed, layers)
        self._whole = whole

    def _sources(self, encoder_inputs: dict[str, Any]) -> tuple[Sequence[int], Callable[[Sequence[int]], None]]:
        read = self._whole._held
        return (read.size.rows, read.size.source), lambda rows: self._held.take_sources(read)
