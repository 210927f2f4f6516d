"""A T5 decoder's steps over buffers whose addresses never change, so that they can be recorded and replayed.

Everything that differs between two calls of the same step stands in a tensor: tokens, lengths, what has been counted so
far, random numbers, sources and their padding. Knows no model beside the decoder, so that what is kept here for the
next call keeps nothing alive but the weights that it was recorded with.

A row that is fed less than the step is wide writes past its end. Nobody looks there before it is overwritten, and the
last place of every row, where positions beyond the buffers end up, is nobody's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bild.engine.capture import Capturer, Captures, Work
from bild.engine.linear import Linear
from bild.engine.runner import Asked
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.encoder import T5Encoder
from bild.engine.t5.layers import Block, in_heads
from bild.engine.t5.state import Caches
from bild.tensors import sent

SMALLEST_CACHE, SMALLEST_SOURCE = 32, 64


def bucket(size: int, smallest: int = 1) -> int:
    """The power of two that holds ``size`` >= 1, at least ``smallest``."""
    return max(smallest, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Head:
    """What makes logits of a decoder's output. The product tells one from another: another list has another."""

    product: Linear
    listed: Tensor | None
    """(V,) the ids of its columns; None = 0 .. V-1"""
    n_outputs: int


@dataclass(frozen=True)
class Replayed:
    """A step by its name, and where it finds and leaves things."""

    name: Hashable
    work: Work
    inputs: Tensor
    """(B, 1 + W) int64: tokens cached, and the tokens to read"""
    out: Tensor
    """(B, W, V) logits"""


@dataclass(frozen=True)
class ReplayedTurn(Replayed):
    """A draft turn of K steps. ``inputs`` (B, 3 + W): tokens cached, tokens to read, tokens drafted so far; and the
    tokens to read, W at most. ``out`` (B, K, V)."""

    numbers: Tensor | None
    """(B, K) uniform numbers; None = greedy"""
    said: Tensor
    """(4, B, K) float64, which holds every token id exactly: what ``Choose`` gave"""


@dataclass(frozen=True)
class Size:
    """What buffers are made for."""

    rows: int
    capacity: int
    """tokens of a row at most, and one place that is nobody's"""
    source: int
    """source tokens of a row at most"""
    layers: range

    @classmethod
    def of(cls, rows: int, longest: int, source: int, layers: range) -> Size:
        """The smallest that holds rows of ``longest`` tokens and sources of ``source``."""
        return cls(rows, bucket(longest + 1, SMALLEST_CACHE), bucket(source, SMALLEST_SOURCE), layers)


class FixedCaches(Caches):
    """Caches, sources, inputs and outputs at fixed addresses, and what has been recorded over them."""

    # In one mode, whatever the caller's: what is made in inference mode cannot be written to outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, decoder: T5Decoder, size: Size, capturer: Capturer) -> None:
        super().__init__(decoder, size.capacity)
        self.size = size
        self._dtype = decoder.embedding.dtype
        self._number_slots(size.rows)
        both = 2 * decoder.inner_width
        self._all_caches = self._zeros(len(size.layers), size.rows, size.capacity, both)
        self._all_joined = self._zeros(len(size.layers), size.rows, size.source, both)
        self._caches, self._joined = list(self._all_caches), list(self._all_joined)
        self._sources = [in_heads(one, 2, decoder.n_heads) for one in self._joined]
        self._padding = self._source_bias = self._zeros(size.rows, 1, 1, size.source)
        self._held: dict[Hashable, Tensor] = {}
        self._captures = Captures(capturer)

    def clear(self) -> None:
        """Forget the last call: not even a number that masks multiply by zero may be left of it."""
        self._all_caches.zero_()
        self._all_joined.zero_()

    def forget_captures(self) -> None:
        """They refer to these buffers, and to the weights."""
        self._captures.clear()

    def read(self, rows: Sequence[int], input_ids: Tensor, mask: Tensor | None, encoder: T5Encoder) -> None:
        """Encode (N, S) token ids, one row for each of these rows, and hold what comes of it."""
        count, width = input_ids.shape
        lanes, room = min(bucket(count), self.size.rows), self.size.source
        inputs = self._hold(("sources", lanes), (lanes, 1 + 2 * room), torch.long)
        inputs.zero_()
        inputs[:count, 0].copy_(torch.tensor(rows), non_blocking=True)
        inputs[:count, 1 : 1 + width].copy_(input_ids)
        inputs[:count, 1 + room : 1 + room + width].copy_(torch.ones_like(input_ids) if mask is None else mask)
        inputs[count:].copy_(inputs[count - 1])  # lanes without a row of their own do the last one's work again

        if ("bias", encoder) not in self._held:
            self._held["bias", encoder] = encoder.bias(room).contiguous()
        distances = self._held["bias", encoder]
        block = Block((lanes, room), None)

        def work() -> None:
            places, ids, counts = inputs[:, 0], inputs[:, 1 : 1 + room], inputs[:, 1 + room :]
            padding = self._padding.new_zeros(lanes, 1, 1, room)
            padding = padding.masked_fill((counts == 0)[:, None, None, :], -torch.inf)
            hidden = encoder.read(ids, block, distances + padding)
            self._padding.index_copy_(0, places, padding)
            flat = hidden.view(-1, hidden.shape[-1])
            for layer, joined in zip(self.size.layers, self._joined, strict=True):
                new = self._decoder.layers[layer].cross_kv(flat)
                joined.index_copy_(0, places, new.view(lanes, room, -1))

        self._captures.run(("read", lanes, encoder), work)

    def hold(self, rows: Sequence[int], joined: Sequence[Tensor], valid: Tensor) -> None:
        """Give these rows the sources (N, S, 2A) of each layer; ``valid`` (N, S)."""
        width, places = valid.shape[1], sent(rows, self._device)
        masked = self._padding.new_full((len(rows), self.size.source), -torch.inf)
        masked[:, :width].masked_fill_(valid, 0)
        self._padding[places] = masked[:, None, None, :]
        for held, new in zip(self._joined, joined, strict=True):
            held[places, :width] = new

    def take_over(self, other: FixedCaches) -> None:
        """Hold what buffers with less room for sources hold."""
        self._all_caches.copy_(other._all_caches)
        self.take_sources(other)

    def take_sources(self, other: FixedCaches) -> None:
        """Hold the sources of buffers with no more room for them and no fewer layers."""
        width = other.size.source
        self._padding.fill_(-torch.inf)
        self._padding[..., :width] = other._padding
        self._all_joined[:, :, :width] = other._all_joined[: len(self._joined)]

    def extend(self, tokens: Tensor, lengths: Sequence[int], head: Head) -> Tensor:
        """(B, W) tokens behind ``lengths`` to their logits (B, W, V)."""
        step = self._step(bucket(tokens.shape[1]), head)
        _fill(step.inputs, [[length] for length in lengths], tokens)
        self._captures.run(step.name, step.work)
        return step.out[:, : tokens.shape[1]].clone()

    def draft(
        self, tokens: Tensor, lengths: Sequence[int], widths: Sequence[int], asked: Asked, head: Head
    ) -> tuple[Tensor, list[Any]]:
        """Several steps, each of what the one before it chose, in one go; see ``DraftRunner.draft``."""
        turn = self._turn(bucket(tokens.shape[1], 2), asked, head)
        facts = [[length, count, asked.n_drafted] for length, count in zip(lengths, widths, strict=True)]
        _fill(turn.inputs, facts, tokens)
        if turn.numbers is not None and asked.uniforms is not None:
            turn.numbers.copy_(asked.uniforms)
        self._captures.run(turn.name, turn.work)
        return turn.out, turn.said.tolist()

    def get_ready(self, widths: Iterable[int], drafts: Iterable[tuple[int, Asked]], head: Head) -> None:
        """Capture what ``extend`` with such widths, and ``draft`` after so many tokens, would capture. Nothing may have
        been cached yet: to capture a step is to take it."""
        steps = [self._step(width, head) for width in {bucket(one) for one in widths}]
        for one in (*steps, *(self._turn(bucket(width, 2), asked, head) for width, asked in drafts)):
            if not self._captures.has(one.name):
                one.inputs.zero_()
                self._captures.run(one.name, one.work)

    def _step(self, width: int, head: Head) -> Replayed:
        """(B, width) tokens to their logits."""
        rows = self.size.rows
        inputs = self._hold(("inputs", 1, width), (rows, 1 + width), torch.long)
        out = self._hold(("logits", width, head.n_outputs), (rows, width, head.n_outputs), self._dtype)

        def work() -> None:
            out.copy_(self._logits(self._hidden(inputs[:, 1:], inputs[:, 0]), head).view(out.shape))

        return Replayed(("extend", width, head.product), work, inputs, out)

    def _turn(self, width: int, asked: Asked, head: Head) -> ReplayedTurn:
        """The steps of a turn that begins with (B, width) tokens."""
        rows, steps, choose = self.size.rows, asked.steps, asked.choose
        inputs = self._hold(("inputs", 3, width), (rows, 3 + width), torch.long)
        numbers = None
        if asked.uniforms is not None:
            numbers = self._hold(("uniforms", steps), (rows, steps), asked.uniforms.dtype)
        out = self._hold(("logits", steps, head.n_outputs), (rows, steps, head.n_outputs), self._dtype)
        said = self._hold(("said", steps), (4, rows, steps), torch.float64)

        def work() -> None:
            """Nothing of this may look at a number: a step's outcome goes into the next one as it is."""
            starts, counts, drafted, fed = inputs[:, 0], inputs[:, 1], inputs[:, 2], inputs[:, 3:]
            chosen = []
            for step in range(steps):
                hidden = self._hidden(fed, starts)
                if step == 0:  # of a row that catches up its last token
                    hidden = hidden.view(rows, width, -1).gather(1, _last(counts, hidden.shape[-1])).squeeze(1)
                logits = self._logits(hidden, head).unsqueeze(1)
                out[:, step : step + 1].copy_(logits)
                number = None if numbers is None else numbers[:, step : step + 1]
                chosen.append(choose(logits, head.listed, drafted + step, number))
                starts = starts + (counts if step == 0 else 1)
                fed = chosen[-1][1]
            for place, each in zip(said, zip(*chosen, strict=True), strict=True):
                place.copy_(torch.cat(each, dim=1))

        return ReplayedTurn(
            ("draft", width, steps, numbers is None, choose, head.product), work, inputs, out, numbers, said
        )

    def _hidden(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """(B * W, D) behind the layers, of (B, W) tokens that stand behind ``starts`` (B,) others."""
        positions = starts.unsqueeze(-1)
        if tokens.shape[1] > 1:
            positions = positions + self._columns[: tokens.shape[1]]
        step = self.at(tokens, positions.clamp(max=self._capacity - 1), None, self._capacity)
        return self.run(self.embed(step), step, self.size.layers)

    def _logits(self, hidden: Tensor, head: Head) -> Tensor:
        """(N, D) to (N, V)."""
        return head.product(self._decoder.ready_for_head(hidden))

    def _hold(self, name: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The tensor of this name, made at its first use."""
        if name not in self._held:
            with torch.inference_mode(False):
                self._held[name] = torch.zeros(shape, dtype=dtype, device=self._device)
        return self._held[name]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)


def _fill(inputs: Tensor, facts: Sequence[Sequence[int]], tokens: Tensor) -> None:
    """Each row's facts and its tokens, in one transfer."""
    unused = [0] * (inputs.shape[1] - len(facts[0]) - tokens.shape[1])
    rows = [[*known, *fed, *unused] for known, fed in zip(facts, tokens.tolist(), strict=True)]
    # Not from pinned memory: the driver has what it copies before this returns.
    inputs.copy_(torch.tensor(rows), non_blocking=True)


def _last(counts: Tensor, width: int) -> Tensor:
    """(B, 1, D) the column of each row's last token; the first of a row that has none."""
    return (counts - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, width)
