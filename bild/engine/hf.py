"""Any encoder-decoder model through transformers' own forward and caches: the slow twin of the fast engines.

A transformers cache has one length for its whole batch, so rows that have moved alike share one cache (a lane) and run
batched; a lane splits when its rows part, down to one row each. Lanes never merge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bild.engine.encoder import encode


@dataclass
class _Lane:
    """Rows that share one cache. R rows, S source positions, D model width."""

    rows: list[int]
    length: int
    """tokens cached, the same for every row"""
    hidden: Tensor
    """(R, S, D) encoder output"""
    mask: Tensor | None
    """(R, S) encoder attention mask"""
    cache: EncoderDecoderCache

    def select(self, members: Sequence[int]) -> _Lane:
        """A lane of its own for the rows at these places of this lane."""
        index = torch.tensor(members, device=self.hidden.device)
        return _Lane(
            rows=[self.rows[member] for member in members],
            length=self.length,
            hidden=self.hidden[index],
            mask=None if self.mask is None else self.mask[index],
            cache=EncoderDecoderCache(
                _select_cache(self.cache.self_attention_cache, index),
                _select_cache(self.cache.cross_attention_cache, index),
            ),
        )


def _select_cache(cache: DynamicCache, index: Tensor) -> DynamicCache:
    selected = DynamicCache()
    for position, layer in enumerate(cache.layers):
        if layer.get_seq_length() > 0:
            selected.update(layer.keys[index], layer.values[index], position)
    return selected


class HuggingFaceRunner:
    """``Runner`` over a transformers encoder-decoder model. Caches grow as needed, whatever the decoder's depth."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._lanes: list[_Lane] = []
        self._lengths: list[int] = []

    @property
    def lengths(self) -> list[int]:
        return self._lengths

    @property
    def vocab_size(self) -> int:
        return int(self._model.get_output_embeddings().weight.shape[0])

    def prefill(self, **encoder_inputs: Any) -> None:
        hidden, mask = encode(self._model, encoder_inputs)
        # Without a config the caches grow layer by layer: T5 sizes them from num_layers, which is the encoder's depth.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._lanes = [_Lane(list(range(hidden.shape[0])), 0, hidden, mask, cache)]
        self._lengths = [0] * hidden.shape[0]

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        self._split(widths)
        logits = torch.zeros(*tokens.shape, self.vocab_size, dtype=self._model.dtype, device=tokens.device)
        for lane in self._lanes:
            width = widths[lane.rows[0]]
            if width > 0:
                logits[lane.rows, :width] = self._forward(lane, tokens[lane.rows, :width])
                lane.length += width
        self._lengths = [length + width for length, width in zip(self._lengths, widths, strict=True)]
        return logits

    def rollback(self, lengths: Sequence[int]) -> None:
        self._split(lengths)
        for lane in self._lanes:
            surplus = lane.length - lengths[lane.rows[0]]
            if surplus > 0:
                lane.cache.self_attention_cache.crop(-surplus)
                lane.length -= surplus
        self._lengths = list(lengths)

    def _forward(self, lane: _Lane, tokens: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=lane.hidden),
            attention_mask=lane.mask,
            decoder_input_ids=tokens,
            past_key_values=lane.cache,
            use_cache=True,
            return_dict=True,
        )
        logits: Tensor = output.logits
        return logits

    def _split(self, key_of: Sequence[Hashable]) -> None:
        """Part the lanes whose rows differ in ``key_of`` (one entry per row)."""
        lanes = []
        for lane in self._lanes:
            groups: dict[Hashable, list[int]] = defaultdict(list)
            for member, row in enumerate(lane.rows):
                groups[key_of[row]].append(member)
            lanes += [lane] if len(groups) == 1 else [lane.select(members) for members in groups.values()]
        self._lanes = lanes
