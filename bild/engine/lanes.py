"""Rows that advance independently, over caches that know one length for a whole batch.

Rows of one length share one cache (a lane) and run batched; a lane splits when its rows part, down to one row each, and
lanes join when they move alike again. Knows transformers' caches, and nothing of what a model's forward takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass
class Lane:
    """R rows that share one cache.

    The caches are made without a config: they grow layer by layer, whatever the decoder's depth, and keep every
    position. Layers that look at a sliding window are held to it by their mask alone, so that a rollback finds what it
    comes back to.
    """

    rows: list[int]
    context: dict[str, Tensor]
    """what the forward needs beside tokens and caches; each (R, ...)"""
    written: DynamicCache = field(default_factory=DynamicCache)
    """keys and values of the tokens"""
    source: DynamicCache = field(default_factory=DynamicCache)
    """keys and values of the encoder's output; stays empty without an encoder"""
    length: int = 0
    """tokens cached, the same for every row"""

    @classmethod
    def of(cls, context: dict[str, Tensor]) -> Lane:
        """New rows, numbered from 0."""
        return cls(list(range(len(next(iter(context.values()))))), context)

    def select(self, members: Sequence[int]) -> Lane:
        """A lane of its own for the rows at these places of this lane."""
        index = torch.tensor(members, device=next(iter(self.context.values())).device)
        return Lane(
            rows=[self.rows[member] for member in members],
            context={name: value[index] for name, value in self.context.items()},
            written=_select(self.written, index),
            source=_select(self.source, index),
            length=self.length,
        )

    @classmethod
    def joined(cls, lanes: Sequence[Lane]) -> Lane:
        """One lane of the rows of several of the same ``shape``."""
        first = lanes[0]
        return cls(
            rows=[row for lane in lanes for row in lane.rows],
            context={name: torch.cat([lane.context[name] for lane in lanes]) for name in first.context},
            written=_join([lane.written for lane in lanes]),
            source=_join([lane.source for lane in lanes]),
            length=first.length,
        )

    @property
    def shape(self) -> Hashable:
        """What lanes must have in common to share a cache: lengths of tokens and source, and whether that was read."""
        widths = [(name, value.shape[1:]) for name, value in self.context.items()]
        return self.length, len(self.source.layers), *widths


def _select(cache: DynamicCache, index: Tensor) -> DynamicCache:
    selected = DynamicCache()
    for position, layer in enumerate(cache.layers):
        if layer.get_seq_length() > 0:
            selected.update(layer.keys[index], layer.values[index], position)
    return selected


def _join(caches: Sequence[DynamicCache]) -> DynamicCache:
    joined = DynamicCache()
    held = [[layer for layer in cache.layers if layer.get_seq_length() > 0] for cache in caches]
    for position, layers in enumerate(zip(*held, strict=True)):
        joined.update(torch.cat([one.keys for one in layers]), torch.cat([one.values for one in layers]), position)
    return joined


class HuggingFaceRunner(ABC):
    """``Runner`` over a model's own forward. What kind of model it is, a subclass knows."""

    listed: Tensor | None = None

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._lanes: list[Lane] = []
        self._lengths: list[int] = []
        self.parted: set[int] = set()

    @property
    def lengths(self) -> list[int]:
        return self._lengths

    @property
    def vocab_size(self) -> int:
        return int(self._model.get_output_embeddings().weight.shape[0])

    @abstractmethod
    def _open(self, inputs: dict[str, Any]) -> Lane:
        """A lane of new rows, one for each of the inputs."""

    @abstractmethod
    def _forward(self, lane: Lane, tokens: Tensor) -> Tensor:
        """Logits (R, W, V) of the (R, W) tokens after those that the lane has cached; they are cached too."""

    def prefill(self, **inputs: Any) -> None:
        lane = self._open(inputs)
        self._lanes = [lane]
        self._lengths = [lane.length] * len(lane.rows)
        self.parted = set()

    def restart(self, rows: Sequence[int], **inputs: Any) -> None:
        lane = self._open(inputs)
        lane.rows = list(rows)
        self._split([row in lane.rows for row in range(len(self._lengths))])
        self._lanes = [one for one in self._lanes if one.rows[0] not in lane.rows] + [lane]
        self.parted -= set(rows)
        for row in rows:
            self._lengths[row] = lane.length

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        self._split(widths)
        self._join(widths)
        moving = [lane for lane in self._lanes if widths[lane.rows[0]] > 0]
        if len(moving) > 1:
            self.parted.update(row for lane in moving for row in lane.rows)
        parts = [self._advance(lane, tokens[lane.rows, : widths[lane.rows[0]]]) for lane in moving]
        self._lengths = [length + width for length, width in zip(self._lengths, widths, strict=True)]
        if parts[0].shape[:2] == tokens.shape and moving[0].rows == list(range(len(tokens))):
            return parts[0]
        logits = parts[0].new_zeros(*tokens.shape, parts[0].shape[-1])
        for lane, part in zip(moving, parts, strict=True):
            logits[lane.rows, : part.shape[1]] = part
        return logits

    def _advance(self, lane: Lane, tokens: Tensor) -> Tensor:
        logits = self._forward(lane, tokens.to(self._model.device, non_blocking=True))
        lane.length += tokens.shape[1]
        return logits

    def rollback(self, lengths: Sequence[int]) -> None:
        self._split(lengths)
        for lane in self._lanes:
            surplus = lane.length - lengths[lane.rows[0]]
            if surplus > 0:
                lane.written.crop(-surplus)
                lane.length -= surplus
        self._lengths = list(lengths)

    def _split(self, key_of: Sequence[Hashable]) -> None:
        """Part the lanes whose rows differ in ``key_of`` (one entry per row)."""
        lanes = []
        for lane in self._lanes:
            groups: dict[Hashable, list[int]] = defaultdict(list)
            for member, row in enumerate(lane.rows):
                groups[key_of[row]].append(member)
            lanes += [lane] if len(groups) == 1 else [lane.select(members) for members in groups.values()]
        self._lanes = lanes

    def _join(self, widths: Sequence[int]) -> None:
        """Bring together the lanes that are about to move alike."""
        groups: dict[Hashable, list[Lane]] = defaultdict(list)
        for lane in self._lanes:
            width = widths[lane.rows[0]]
            groups[(width, lane.shape) if width > 0 else id(lane)].append(lane)
        self._lanes = [group[0] if len(group) == 1 else Lane.joined(group) for group in groups.values()]
