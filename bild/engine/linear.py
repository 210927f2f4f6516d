"""Matrix products with weights that are prepared once: as they are, packed for oneDNN, or int8.

Knows torch's operators and nothing of models. The packed and int8 operators are torch's own but not public, so each has
a plain twin that serves where they are missing.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

INT8_LIMIT = 127
SMALLEST = 1e-30  # what a row of zeros counts as; its inverse is a float32 too
WORTH_PACKING = 1 << 18  # weights; a call into oneDNN costs as much as reading about as many


class Linear(Protocol):
    """A product with a fixed (O, I) matrix."""

    def __call__(self, x: Tensor) -> Tensor:
        """(N, I) to (N, O), in the dtype of ``x``."""


class PlainLinear:
    """The weights as they are. torch may rearrange them for the processor at every call with more than one row."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight)


class PackedLinear:
    """A copy of the weights in the layout that oneDNN reads fastest, made once."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return product


class Int8Linear:
    """int8 weights with one scale per output channel, activations rounded to int8 with one scale per row.

    The sums are exact integers and a row's scale depends on the row alone, so a row's product is bitwise the same at
    any batch and width. What a model does between its products (attention, norms) is not, in float32.
    """

    def __init__(self, weight: Tensor) -> None:
        scale = channel_scales(weight)
        quantized = quantize_rows(weight.float(), scale.unsqueeze(-1), INT8_LIMIT).to(torch.int8)
        self._round = RowRounding()
        self._weight_scale = scale / self._round.limit
        self._zero_points = torch.zeros(len(weight), dtype=torch.int32)
        self._packed = torch.ops.onednn.qlinear_prepack(quantized, None)

    def __call__(self, x: Tensor) -> Tensor:
        rounded, largest = self._round(x)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, self._round.zero_point, self._packed, self._weight_scale, self._zero_points, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        return product.mul_(largest).to(x.dtype)


class ExactInt8Linear:
    """The slow twin of ``Int8Linear``: the same integers, summed exactly in float64."""

    def __init__(self, weight: Tensor) -> None:
        scale = channel_scales(weight)
        self._round = RowRounding()
        self._weight_scale = scale / self._round.limit
        self._quantized = quantize_rows(weight.float(), scale.unsqueeze(-1), INT8_LIMIT).double()

    def __call__(self, x: Tensor) -> Tensor:
        rounded, largest = self._round(x)
        sums = F.linear(rounded.double() - self._round.zero_point, self._quantized)
        return (sums.float() * self._weight_scale * largest).to(x.dtype)


class RowRounding:
    """Activations as 8-bit integers, each row in units of its own largest. Every operation here rounds each element by
    itself, wherever it stands in a batch; a fused one would not."""

    def __init__(self) -> None:
        limit = activation_limit()
        self.limit = limit
        self.zero_point = limit + 1
        # Tensors, because a Python number is converted at every call.
        self._limit = torch.tensor(limit, dtype=torch.float32)
        self._shift = torch.tensor(self.zero_point + 0.5, dtype=torch.float32)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, I) to (N, I) uint8 around the zero point, and (N, 1) float32 what ``limit`` units are worth, never 0."""
        x = x.float()
        largest = x.abs().amax(-1, keepdim=True).clamp_min_(SMALLEST)
        # Conversion cuts the fraction off, and so rounds what the half has been added to.
        return x.mul(self._limit / largest).add_(self._shift).to(torch.uint8), largest


def activation_limit() -> int:
    """The largest rounded activation. Without the processor's 8-bit dot product (VNNI) they keep 7 bits: the older
    instruction adds two products in 16 bits, which two of 8 bits can overflow."""
    return INT8_LIMIT if torch.cpu._is_vnni_supported() else INT8_LIMIT // 2


def channel_scales(weight: Tensor) -> Tensor:
    """(O, I) to (O,) float32: what one int8 unit of each output channel is worth. A channel of zeros gets 1."""
    largest = weight.detach().float().abs().amax(-1)
    return torch.where(largest > 0, largest / INT8_LIMIT, 1.0)


def quantize_rows(x: Tensor, scale: Tensor, limit: int) -> Tensor:
    """``x`` in whole units of ``scale``, within plus and minus ``limit``."""
    return (x.detach() / scale).round().clamp(-limit, limit)


def make_linear(weight: Tensor, *, int8: bool) -> Linear:
    """The fastest product with ``weight`` (O, I) that this machine has for its device and dtype."""
    weight = weight.detach()
    if int8:
        return Int8Linear(weight) if _has_onednn("onednn", "qlinear_pointwise") else ExactInt8Linear(weight)
    if weight.device.type == "cpu" and weight.numel() >= WORTH_PACKING and _packs(weight.dtype):
        return PackedLinear(weight)
    return PlainLinear(weight)


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes packed weights of this dtype; bfloat16 only where the processor has instructions for it."""
    if not _has_onednn("mkldnn", "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _packs_bfloat16())


def _packs_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_onednn(namespace: str, operator: str) -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available) and hasattr(getattr(torch.ops, namespace), operator)
