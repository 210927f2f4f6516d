"""The encoder: padding costs nothing outside attention. Knows one batch of sources and keeps nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bild.engine.linear import Linear
from bild.engine.t5.layers import Block, FeedForward, Norm, aligned, attend, in_heads, product, settle


@dataclass(frozen=True)
class EncoderLayer:
    """What one encoder layer needs."""

    norm: Norm
    qkv: Linear
    """D to 3A: query, key and value side by side"""
    out: Linear
    feed_forward: FeedForward


class T5Encoder:
    """The encoder half of a T5 or mT5. Stateless."""

    def __init__(self, stack: Any, embedding: Tensor, *, int8: bool) -> None:
        config = stack.config
        self._n_heads: int = config.num_heads
        self._embedding = embedding
        self._attention = stack.block[0].layer[0].SelfAttention
        self._final_norm = Norm(stack.final_layer_norm)
        self._layers = []
        for block in stack.block:
            own = block.layer[0].SelfAttention
            self._layers.append(
                EncoderLayer(
                    norm=Norm(block.layer[0].layer_norm),
                    qkv=product(own.q, own.k, own.v, int8=int8),
                    out=product(own.o, int8=int8),
                    feed_forward=FeedForward(block.layer[1], config, int8=int8),
                )
            )

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, S) token ids and mask to (B, S, D) hidden states, zero where the mask is."""
        rows, width = input_ids.shape
        places = None
        bias = self.bias(width)
        if attention_mask is not None and not bool(attention_mask.all()):
            places = attention_mask.flatten().nonzero().squeeze(-1)
            bias = bias.masked_fill((attention_mask == 0)[:, None, None, :], -torch.inf)
        return self.read(input_ids, Block((rows, width), places), bias)

    def bias(self, width: int) -> Tensor:
        """(1, H, S, S) what each head adds to a product for the distance of its two tokens."""
        bias: Tensor = self._attention.compute_bias(width, width).detach().contiguous()  # as fused attention asks for
        return bias

    def read(self, input_ids: Tensor, block: Block, bias: Tensor) -> Tensor:
        """(B, S) token ids to (B, S, D) hidden states, of those that count in the block. ``bias`` (1 or B, H, S, S)."""
        bias = aligned(bias).expand(block.shape[0], -1, -1, -1)
        hidden = F.embedding(block.flat(input_ids).view(-1), self._embedding)
        for layer in self._layers:
            joined = block.spread(layer.qkv(layer.norm(hidden)))
            query, key, value = in_heads(joined, 3, self._n_heads)
            hidden = settle(hidden + layer.out(block.flat(attend(query, key, value, bias))))
            hidden = settle(hidden + layer.feed_forward(hidden))
        return block.spread(self._final_norm(hidden))
