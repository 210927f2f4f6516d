"""A decoder step for T5 and mT5 over preallocated caches, in which every row stands at its own length.

Works on the model's own embeddings and norms, and on products prepared once per model (``bild.engine.linear``). Only
the tokens that count are computed: rows of different width lie one behind the other, and meet in attention alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from bild.engine.encoder import encode
from bild.engine.linear import Linear, make_linear


@dataclass(frozen=True)
class DecoderLayer:
    """What one decoder layer needs. D model width, A heads times their width, E feed-forward width."""

    self_norm: Tensor
    qkv: Linear
    """D to 3A: query, key and value side by side"""
    self_out: Linear
    cross_norm: Tensor
    cross_query: Linear
    cross_kv: Linear
    """D to 2A, of the encoder's output"""
    cross_out: Linear
    norm: Tensor
    up: Linear
    """D to E, or to 2E where the activation is gated: the activated half first"""
    down: Linear
    down_dtype: torch.dtype
    """transformers keeps these weights in float32 in a float16 model"""


class T5Decoder:
    """The decoder half of a T5 or mT5, ready to step. Stateless: serves any number of runners."""

    def __init__(self, model: PreTrainedModel, *, int8: bool = False) -> None:
        config = model.config
        self.n_heads = config.num_heads
        self.head_width = config.d_kv
        self.embedding = model.get_input_embeddings().weight.detach()
        self.layers = [_layer(block.layer, gated=config.is_gated_act, int8=int8) for block in model.decoder.block]
        self.final_norm = model.decoder.final_layer_norm.weight.detach()
        self.epsilon: float = config.layer_norm_epsilon
        self.act: Callable[[Tensor], Tensor] = ACT2FN[config.dense_act_fn]
        self.gated: bool = config.is_gated_act
        head = model.get_output_embeddings().weight
        self.vocab_size = int(head.shape[0])
        self.head = make_linear(head, int8=int8)
        # mT5 has no such field and never scales.
        self.head_scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        self._attention = model.decoder.block[0].layer[0].SelfAttention

    def bias_of_distance(self, distances: int) -> Tensor:
        """(H, 2N) for N = ``distances``: column N + d is what a head adds to a key that lies d tokens back, -inf to one
        that lies ahead (d < 0)."""
        # Row N-1 of transformers' own table holds the distances N-1 .. 0.
        row = self._attention.compute_bias(1, distances, past_seen_tokens=distances - 1)[0, :, 0].detach()
        return torch.cat([torch.full_like(row, -torch.inf), row.flip(-1)], dim=-1)


def _layer(parts: Any, *, gated: bool, int8: bool) -> DecoderLayer:
    own, cross, dense = parts[0].SelfAttention, parts[1].EncDecAttention, parts[2].DenseReluDense

    def product(*modules: Any) -> Linear:
        return make_linear(torch.cat([module.weight for module in modules]), int8=int8)

    return DecoderLayer(
        self_norm=parts[0].layer_norm.weight.detach(),
        qkv=product(own.q, own.k, own.v),
        self_out=product(own.o),
        cross_norm=parts[1].layer_norm.weight.detach(),
        cross_query=product(cross.q),
        cross_kv=product(cross.k, cross.v),
        cross_out=product(cross.o),
        norm=parts[2].layer_norm.weight.detach(),
        up=product(dense.wi_0, dense.wi_1) if gated else product(dense.wi),
        down=product(dense.wo),
        down_dtype=dense.wo.weight.dtype,
    )


@dataclass(frozen=True)
class _Step:
    """The geometry of one call of ``extend``: N tokens that count, in a block of B rows and W columns."""

    tokens: Tensor
    """(N,)"""
    slots: Tensor
    """(N,) where their keys and values go among the B times C places of a cache"""
    places: Tensor | None
    """(N,) where they lie in the block, None if they fill it"""
    shape: tuple[int, int]
    """B, W"""
    reach: int
    """columns of the cache that any of them may look at"""
    bias: Tensor
    """(B, H, W, reach) position bias, -inf ahead"""

    def block(self, values: Tensor) -> Tensor:
        """(N, X) to (B, W, X); places that do not count hold zeros."""
        if self.places is not None:
            full = values.new_zeros(self.shape[0] * self.shape[1], values.shape[-1])
            values = full.index_copy_(0, self.places, values)
        return values.view(*self.shape, -1)

    def flat(self, block: Tensor) -> Tensor:
        """(B, W, X) to (N, X)."""
        values = block.reshape(self.shape[0] * self.shape[1], -1)
        return values if self.places is None else values[self.places]


class T5Runner:
    """``Runner`` over a ``T5Decoder``. Caches are sized for ``max_length`` tokens a row; rollback moves no data."""

    def __init__(self, model: PreTrainedModel, decoder: T5Decoder, max_length: int) -> None:
        self._model = model
        self._decoder = decoder
        self._capacity = max_length
        self._bias = decoder.bias_of_distance(self._capacity)
        self._lengths: list[int] = []
        self._caches: list[Tensor] = []
        self._sources: list[tuple[Tensor, Tensor]] = []
        self._source_bias: Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        return self._lengths

    @property
    def vocab_size(self) -> int:
        return self._decoder.vocab_size

    def prefill(self, **encoder_inputs: Any) -> None:
        hidden, mask = encode(self._model, encoder_inputs)
        decoder, rows = self._decoder, hidden.shape[0]
        width = 2 * decoder.n_heads * decoder.head_width
        self._lengths = [0] * rows
        self._caches = [hidden.new_zeros(rows, self._capacity, width) for _ in decoder.layers]
        flat = hidden.reshape(-1, hidden.shape[-1])
        self._sources = [self._heads(layer.cross_kv(flat).view(*hidden.shape[:2], width)) for layer in decoder.layers]
        self._source_bias = None
        if mask is not None and not bool(mask.all()):
            bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
            self._source_bias = bias.masked_fill_(mask == 0, -torch.inf)[:, None, None, :]

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        step = self._step(tokens, widths)
        decoder = self._decoder
        hidden = F.embedding(step.tokens, decoder.embedding)
        for layer, cache, source in zip(decoder.layers, self._caches, self._sources, strict=True):
            hidden = _settle(hidden + self._attend_to_itself(layer, cache, step, hidden))
            hidden = _settle(hidden + self._attend_to_source(layer, source, step, hidden))
            hidden = _settle(hidden + self._feed_forward(layer, hidden))
        self._lengths = [length + width for length, width in zip(self._lengths, widths, strict=True)]
        return step.block(decoder.head(self._norm(hidden, decoder.final_norm) * decoder.head_scale))

    def rollback(self, lengths: Sequence[int]) -> None:
        self._lengths = list(lengths)

    def _step(self, tokens: Tensor, widths: Sequence[int]) -> _Step:
        (rows, width), device = tokens.shape, tokens.device
        reach = max(map(sum, zip(self._lengths, widths, strict=True)))
        if reach > self._capacity:
            raise ValueError(f"the cache holds {self._capacity} tokens a row, {reach} are needed")
        columns = torch.arange(width, device=device)
        positions = torch.tensor(self._lengths, device=device).unsqueeze(-1) + columns
        slots = (positions + torch.arange(rows, device=device).unsqueeze(-1) * self._capacity).flatten()
        places = None
        if min(widths) < width:
            counts = columns < torch.tensor(widths, device=device).unsqueeze(-1)
            places = counts.flatten().nonzero().squeeze(-1)
            positions = positions.clamp(max=self._capacity - 1)
        # Distance d is in column capacity + d of the table.
        distances = (positions + self._capacity).unsqueeze(-1) - torch.arange(reach, device=device)
        flat = tokens.flatten()
        return _Step(
            tokens=flat if places is None else flat[places],
            slots=slots if places is None else slots[places],
            places=places,
            shape=(rows, width),
            reach=reach,
            bias=self._bias[:, distances].transpose(0, 1),
        )

    def _attend_to_itself(self, layer: DecoderLayer, cache: Tensor, step: _Step, hidden: Tensor) -> Tensor:
        joined = layer.qkv(self._norm(hidden, layer.self_norm))
        inner = joined.shape[-1] // 3
        cache.view(-1, cache.shape[-1]).index_copy_(0, step.slots, joined[:, inner:])
        keys, values = self._heads(cache[:, : step.reach])
        return layer.self_out(self._attend(step, joined[:, :inner], keys, values, step.bias))

    def _attend_to_source(
        self, layer: DecoderLayer, source: tuple[Tensor, Tensor], step: _Step, hidden: Tensor
    ) -> Tensor:
        query = layer.cross_query(self._norm(hidden, layer.cross_norm))
        return layer.cross_out(self._attend(step, query, *source, self._source_bias))

    def _attend(self, step: _Step, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """(N, A) queries over (B, H, T, A/H) keys and values to (N, A). T5 does not scale its products."""
        decoder = self._decoder
        query = step.block(query).view(*step.shape, decoder.n_heads, decoder.head_width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0)
        return step.flat(mixed.transpose(1, 2))

    def _heads(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 2A) keys and values side by side to two views (B, H, T, A/H)."""
        decoder = self._decoder
        split = joined.view(*joined.shape[:2], 2, decoder.n_heads, decoder.head_width).permute(2, 0, 3, 1, 4)
        return split[0], split[1]

    def _feed_forward(self, layer: DecoderLayer, hidden: Tensor) -> Tensor:
        raised = layer.up(self._norm(hidden, layer.norm))
        if self._decoder.gated:
            inner, gate = raised.chunk(2, dim=-1)
            raised = self._decoder.act(inner) * gate
        else:
            raised = self._decoder.act(raised)
        return layer.down(raised.to(layer.down_dtype))

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Root mean square norm, its mean in float32 as in transformers."""
        variance = hidden.float().square().mean(-1, keepdim=True)
        scaled = hidden * torch.rsqrt(variance + self._decoder.epsilon)
        return weight * (scaled.to(weight.dtype) if weight.dtype.itemsize == 2 else scaled)


def _settle(hidden: Tensor) -> Tensor:
    """float16 saturates instead of overflowing, as in transformers."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max
    return hidden.clamp(-limit + 1000, limit - 1000) if bool(hidden.isinf().any()) else hidden
