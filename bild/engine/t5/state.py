"""What stands before a T5 decoder's layers: B rows, each with its source and, at its own length, its keys and values.

Only the tokens that count are computed: rows of different width lie one behind the other, and meet in attention alone.
Knows no head, and keeps no lengths: who steps says where each row stands, so that two may step over the same caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bild.engine.t5.decoder import DecoderLayer, T5Decoder
from bild.engine.t5.layers import Block, aligned, attend, in_heads, settle
from bild.engine.t5.source import SourceReader
from bild.tensors import sent


@dataclass(frozen=True)
class Step:
    """The geometry of one pass: N tokens that count, in a block of B rows and W columns."""

    tokens: Tensor
    """(N,)"""
    slots: Tensor
    """(N,) where their keys and values go among the B times C places of a cache"""
    block: Block
    """how they lie in B rows and W columns"""
    reach: int
    """columns of the cache that any of them may look at"""
    bias: Tensor
    """(B, H, W, reach) position bias, -inf ahead"""

    def only(self, some: Sequence[int]) -> Step:
        """The same for some of the N tokens."""
        index = torch.tensor(some, device=self.slots.device, dtype=torch.long)
        places = index if self.block.places is None else self.block.places[index]
        return replace(self, tokens=self.tokens[index], slots=self.slots[index], block=Block(self.block.shape, places))


class Caches:
    """A decoder's layers over B rows of at most ``capacity`` tokens: what they have cached, and their sources."""

    def __init__(self, decoder: T5Decoder, capacity: int) -> None:
        self._decoder = decoder
        self._capacity = capacity
        self._device = decoder.embedding.device
        self._bias = decoder.bias_of_distance(capacity)
        # What every step needs, made once. Distance d is in column capacity + d of the table.
        self._columns = torch.arange(capacity, device=self._device)
        self._columns_of_bias = capacity - self._columns
        self._first_slots = torch.zeros(0, 1, dtype=torch.long)
        """(B, 1) the first place of each row"""
        self._caches: list[Tensor] = []
        """(B, C, 2A) of each layer, keys and values side by side"""
        self._sources: list[tuple[Tensor, ...]] = []
        """keys and values (B, H, S, A / H) of each layer"""
        self._source_bias: Tensor | None = None
        """(B, 1, 1, S), -inf at padding"""

    @property
    def slots(self) -> int:
        """Places that the rows have together; ``Step.slots`` numbers them."""
        return self._caches[0].shape[0] * self._capacity

    def at(self, tokens: Tensor, positions: Tensor, places: Tensor | None, reach: int) -> Step:
        """(B, W) ``tokens`` at (B, W) positions below the capacity, of which those in ``places`` count, in sight of the
        first ``reach`` positions."""
        block = Block((tokens.shape[0], tokens.shape[1]), places)
        columns = positions.unsqueeze(-1) + self._columns_of_bias[:reach]
        return Step(
            tokens=block.flat(tokens).view(-1),
            slots=block.flat(positions + self._first_slots).view(-1),
            block=block,
            reach=reach,
            bias=aligned(self._bias[:, columns].transpose(0, 1)),
        )

    def _number_slots(self, rows: int) -> None:
        self._first_slots = (torch.arange(rows, device=self._device) * self._capacity).unsqueeze(-1)

    def embed(self, step: Step) -> Tensor:
        """(N, D) what the first layer reads."""
        return F.embedding(step.tokens, self._decoder.embedding)

    def run(self, hidden: Tensor, step: Step, layers: range) -> Tensor:
        """(N, D) through these decoder layers, whose keys and values are cached."""
        for layer in layers:
            hidden = self.pass_through(hidden, self.remember(hidden, step, layer), step, layer)
        return hidden

    def remember(self, hidden: Tensor, step: Step, layer: int) -> Tensor:
        """Cache the keys and values that a layer makes of (N, D). Returns the (N, A) queries."""
        parts, cache, inner = self._decoder.layers[layer], self._caches[layer], self._decoder.inner_width
        joined = parts.qkv(parts.self_norm(hidden))
        cache.view(-1, cache.shape[-1]).index_copy_(0, step.slots, joined[:, inner:])
        return joined[:, :inner]

    def pass_through(self, hidden: Tensor, query: Tensor, step: Step, layer: int) -> Tensor:
        """(N, D) through a layer that has remembered them, with the queries (N, A) that it gave back."""
        parts = self._decoder.layers[layer]
        keys, values = in_heads(self._caches[layer][:, : step.reach], 2, self._decoder.n_heads)
        hidden = settle(hidden + parts.self_out(self._attend(step, query, keys, values, step.bias)))
        hidden = settle(hidden + self._attend_to_source(parts, self._sources[layer], step, hidden))
        return settle(hidden + parts.feed_forward(hidden))

    def share_before(self, step: Step) -> Tensor:
        """(N,) how much of the most tokens that can stand before the last one of a row stands before each."""
        return step.slots % self._capacity / max(1, self._capacity - 1)

    def _attend_to_source(self, layer: DecoderLayer, source: tuple[Tensor, ...], step: Step, hidden: Tensor) -> Tensor:
        query = layer.cross_query(layer.cross_norm(hidden))
        keys, values = source
        return layer.cross_out(self._attend(step, query, keys, values, self._source_bias))

    def _attend(self, step: Step, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """(N, A) queries over (B, H, T, A/H) keys and values to (N, A)."""
        (queries,) = in_heads(step.block.spread(query), 1, self._decoder.n_heads)
        return step.block.flat(attend(queries, keys, values, bias))


class T5State(Caches):
    """Caches that are made anew for every batch of sources, and grow no longer than they need to be."""

    def __init__(self, reader: SourceReader, decoder: T5Decoder, capacity: int) -> None:
        super().__init__(decoder, capacity)
        self._reader = reader
        self._joined: list[Tensor] = []
        """(B, S, 2A) of each layer, keys and values of the sources side by side"""
        self._valid = torch.zeros(0, 0, dtype=torch.bool)
        """(B, S) where they are no padding"""

    def prefill(self, encoder_inputs: dict[str, Any]) -> int:
        """Begin with these sources, and with nothing cached. Returns how many rows there are."""
        joined, valid = self._reader.read(encoder_inputs, self._decoder.all_layers)
        self._caches = [one.new_zeros(len(valid), self._capacity, one.shape[-1]) for one in joined]
        self._joined, self._valid = joined, valid
        self._number_slots(len(valid))
        self._show_sources(valid.shape[1])
        return len(valid)

    def restart(self, rows: Sequence[int], encoder_inputs: dict[str, Any]) -> None:
        """Give these rows other sources."""
        joined, valid = self._reader.read(encoder_inputs, self._decoder.all_layers)
        width, room = valid.shape[1], self._valid.shape[1]
        if width > room:
            more = max(width, room + room // 2) - room  # so that a batch whose sources grow is not copied each time
            self._valid = F.pad(self._valid, (0, more))
            self._joined = [F.pad(one, (0, 0, 0, more)) for one in self._joined]
        index = torch.tensor(rows, device=valid.device)
        self._valid[index] = False
        self._valid[index, :width] = valid
        # What stands behind a shorter source is another's, and masked.
        for held, new in zip(self._joined, joined, strict=True):
            held[index, :width] = new
        self._show_sources(int(self._valid.any(0).nonzero().max()) + 1)

    def _show_sources(self, width: int) -> None:
        """Let the rows attend to the first ``width`` places of what is held of their sources."""
        valid = self._valid[:, :width]
        self._sources = [in_heads(one[:, :width], 2, self._decoder.n_heads) for one in self._joined]
        bias = torch.zeros(valid.shape, dtype=self._joined[0].dtype, device=valid.device)
        padded = not bool(valid.all())
        self._source_bias = aligned(bias.masked_fill_(~valid, -torch.inf)[:, None, None, :]) if padded else None

    def step(self, tokens: Tensor, lengths: Sequence[int], widths: Sequence[int]) -> Step:
        """Each row's first ``widths`` of (B, W) ``tokens``, behind the ``lengths`` that it has.

        Raises:
            ValueError: the caches hold fewer.
        """
        width = tokens.shape[1]
        reach = max(map(sum, zip(lengths, widths, strict=True)))
        if reach > self._capacity:
            raise ValueError(f"the cache holds {self._capacity} tokens a row, {reach} are needed")
        positions = sent(lengths, self._device).unsqueeze(-1) + self._columns[:width]
        places = None
        if min(widths) < width:
            counted = [row * width + column for row, count in enumerate(widths) for column in range(count)]
            places = sent(counted, self._device, torch.long)
            positions = positions.clamp(max=self._capacity - 1)
        return self.at(tokens.to(self._device, non_blocking=True), positions, places, reach)
