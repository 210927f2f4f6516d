"""What the encoder's and the decoder's layers have in common: norm, attention bias, feed-forward.

Knows transformers' modules and prepared products; knows no caches. N tokens, D model width, A heads times their width,
H heads, E feed-forward width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import ACT2FN

from bild.engine.linear import Linear, make_linear

ALIGNMENT = 8  # numbers; 16 bytes of those of two


def on_gpu(values: Tensor) -> bool:
    """Where what an operation does is little beside its launch."""
    return values.is_cuda


def product(*modules: Any, int8: bool) -> Linear:
    """The products of several ``nn.Linear`` with one input as a single one, their outputs side by side."""
    weights = [module.weight.detach() for module in modules]
    return make_linear(weights[0] if len(weights) == 1 else torch.cat(weights), int8=int8)


class Norm:
    """T5's norm: root mean square, no bias. The mean is taken in float32, as transformers does."""

    def __init__(self, module: Any) -> None:
        self._weight = module.weight.detach()
        self._epsilon: float = module.variance_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, D) in the dtype of the weights."""
        if on_gpu(hidden) and hidden.dtype == self._weight.dtype:  # one kernel in place of eight
            return F.rms_norm(hidden, self._weight.shape, self._weight, self._epsilon)
        variance = hidden.float().square().mean(-1, keepdim=True)
        scaled = hidden * torch.rsqrt(variance + self._epsilon)
        narrow = scaled.to(self._weight.dtype) if self._weight.dtype.itemsize == 2 else scaled
        return torch.mul(self._weight, narrow)


class FeedForward:
    """A feed-forward layer with its norm; relu, or gelu that is gated by a second product."""

    def __init__(self, module: Any, config: Any, *, int8: bool) -> None:
        dense = module.DenseReluDense
        self._norm = Norm(module.layer_norm)
        self._gated: bool = config.is_gated_act
        self._act = ACT2FN[config.dense_act_fn]
        self._up = product(dense.wi_0, dense.wi_1, int8=int8) if self._gated else product(dense.wi, int8=int8)
        self._down = product(dense.wo, int8=int8)
        # transformers keeps these weights in float32 in a float16 model.
        self._down_dtype = dense.wo.weight.dtype

    def __call__(self, hidden: Tensor) -> Tensor:
        """(N, D) to what is added to it."""
        raised = self._up(self._norm(hidden))
        if self._gated:
            inner, gate = raised.chunk(2, dim=-1)
            raised = self._act(inner) * gate
        else:
            raised = self._act(raised)
        return self._down(raised.to(self._down_dtype))


def settle(hidden: Tensor) -> Tensor:
    """float16 saturates instead of overflowing, as in transformers."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-limit, limit)


@dataclass(frozen=True)
class Block:
    """Where N tokens that count lie in a block of B rows and W columns: one behind the other for products, in their
    places for attention."""

    shape: tuple[int, int]
    """B, W"""
    places: Tensor | None
    """(N,) of the flattened block, None if they fill it"""

    def spread(self, values: Tensor) -> Tensor:
        """(N, X) to (B, W, X); places that do not count hold zeros."""
        if self.places is not None:
            full = values.new_zeros(self.shape[0] * self.shape[1], values.shape[-1])
            values = full.index_copy_(0, self.places, values)
        return values.view(*self.shape, -1)

    def flat(self, block: Tensor) -> Tensor:
        """(B, W, ...) to (N, X)."""
        values = block.reshape(self.shape[0] * self.shape[1], -1)
        return values if self.places is None else values[self.places]


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """(B, H, W, A / H) queries over T keys and values to (B, W, H, A / H); ``bias`` ``aligned``, of any shape that
    expands to (B, H, W, T). T5 does not scale its products."""
    if on_gpu(query) and query.dtype != torch.float64 and query.shape[-1] % ALIGNMENT == 0:
        return attend_by_one_kernel(query, keys, values, bias)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0).transpose(1, 2)


def attend_by_one_kernel(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """``attend`` by the kernel that takes a bias and any lengths as they come. Left to choose, torch would ask cuDNN on
    Hopper, which builds a plan for every new shape: for every token of a text that grows."""
    if bias is not None:
        bias = bias.expand(*query.shape[:3], keys.shape[2])
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, keys, values, bias, False, scale=1.0
    )[0]
    return attended.transpose(1, 2)


def aligned(bias: Tensor) -> Tensor:
    """The same (..., T), with rows that a GPU's attention can read ``ALIGNMENT`` numbers at a time."""
    width = bias.shape[-1]
    surplus = -width % ALIGNMENT
    if not on_gpu(bias) or (surplus == 0 and bias.stride(-1) == 1):
        return bias
    rows = bias.new_zeros(*bias.shape[:-1], width + surplus)[..., :width]
    return rows.copy_(bias)


def in_heads(values: Tensor, parts: int, n_heads: int) -> tuple[Tensor, ...]:
    """(B, T, parts * A) side by side to ``parts`` views (B, H, T, A / H)."""
    split = values.view(*values.shape[:2], parts, n_heads, values.shape[-1] // (parts * n_heads))
    return split.permute(2, 0, 3, 1, 4).unbind(0)
