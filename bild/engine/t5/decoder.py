"""The decoder's weights, ready to step: one object serves any number of runners, in any thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.linear import Linear, make_linear
from bild.engine.t5.layers import FeedForward, Norm, product
from bild.engine.t5.shelf import Shelf


@dataclass(frozen=True)
class DecoderLayer:
    """What one decoder layer needs."""

    self_norm: Norm
    qkv: Linear
    """D to 3A: query, key and value side by side"""
    self_out: Linear
    cross_norm: Norm
    cross_query: Linear
    cross_kv: Linear
    """D to 2A, of the encoder's output"""
    cross_out: Linear
    feed_forward: FeedForward


class T5Decoder:
    """The decoder half of a T5 or mT5."""

    def __init__(self, model: PreTrainedModel, *, int8: bool) -> None:
        config = model.config
        self.n_heads: int = config.num_heads
        self.inner_width: int = config.num_heads * config.d_kv
        self.embedding = model.get_input_embeddings().weight.detach()
        self.layers = [_layer(block.layer, config, int8=int8) for block in model.decoder.block]
        self.final_norm = Norm(model.decoder.final_layer_norm)
        head = model.get_output_embeddings().weight.detach()
        self.vocab_size = int(head.shape[0])
        self._head_weight, self._int8 = head, int8
        self._whole_head: Linear | None = None
        self._short_head: tuple[Tensor, Linear] | None = None
        # mT5 has no such field and never scales.
        self.head_scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        self._attention = model.decoder.block[0].layer[0].SelfAttention
        self._distance_bias = torch.empty(self.n_heads, 0)
        self.shelf = Shelf()

    @property
    def all_layers(self) -> range:
        return range(len(self.layers))

    def ready_for_head(self, hidden: Tensor) -> Tensor:
        """(N, D) after any layer to what the head reads: T5's final norm, and its scale."""
        return self.final_norm(hidden) * self.head_scale

    def head(self, ids: Tensor | None) -> Linear:
        """D to the logits of all ids, or of the listed ones (V',) alone; the last list's is kept."""
        if ids is None:
            if self._whole_head is None:
                self._whole_head = make_linear(self._head_weight, int8=self._int8)
            return self._whole_head
        kept = self._short_head  # read once: another thread may put its own list there
        if kept is None or not torch.equal(kept[0], ids):
            kept = self._short_head = ids, make_linear(self._head_weight[ids], int8=self._int8)
        return kept[1]

    def bias_of_distance(self, distances: int) -> Tensor:
        """(H, 2N) for N = ``distances``: column N + d is what a head adds to a key that lies d tokens back, -inf to one
        that lies ahead (d < 0)."""
        table = self._distance_bias
        if table.shape[-1] // 2 < distances:
            # Row N-1 of transformers' own table holds the distances N-1 .. 0.
            row = self._attention.compute_bias(1, distances, past_seen_tokens=distances - 1)[0, :, 0].detach()
            table = self._distance_bias = torch.cat([torch.full_like(row, -torch.inf), row.flip(-1)], dim=-1)
        middle = table.shape[-1] // 2
        return table[:, middle - distances : middle + distances]


def _layer(parts: Any, config: Any, *, int8: bool) -> DecoderLayer:
    own, cross = parts[0].SelfAttention, parts[1].EncDecAttention
    return DecoderLayer(
        self_norm=Norm(parts[0].layer_norm),
        qkv=product(own.q, own.k, own.v, int8=int8),
        self_out=product(own.o, int8=int8),
        cross_norm=Norm(parts[1].layer_norm),
        cross_query=product(cross.q, int8=int8),
        cross_kv=product(cross.k, cross.v, int8=int8),
        cross_out=product(cross.o, int8=int8),
        feed_forward=FeedForward(parts[2], config, int8=int8),
    )
