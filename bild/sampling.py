"""Logits to probabilities to tokens, and the random numbers that pick them.

Knows nothing about models, policies or rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """How a token is drawn from processed logits. Raises ValueError on values outside the ranges given here."""

    do_sample: bool = False
    temperature: float = 1.0
    """>= 0; 0 means greedy"""
    top_k: int | None = None
    """>= 1, or None for the whole vocabulary"""
    top_p: float | None = None
    """in (0, 1], or None for the whole distribution"""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature={self.temperature} must be a finite number >= 0 (0 = greedy)")
        if self.top_k is not None and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise ValueError(f"top_k={self.top_k} must be a whole number >= 1, or None for the whole vocabulary")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1], or None for the whole distribution")

    @property
    def greedy(self) -> bool:
        return not self.do_sample or self.temperature == 0

    @property
    def plain(self) -> bool:
        """Tokens are drawn from the softmax of the processed logits as it is."""
        whole = self.top_k is None and (self.top_p is None or self.top_p == 1)
        return not self.greedy and self.temperature == 1 and whole

    def distribution(self, processed: Tensor) -> Tensor:
        """(..., V) processed logits to the (..., V) probabilities that tokens are drawn from."""
        if self.greedy:
            return torch.nn.functional.one_hot(processed.argmax(-1), processed.shape[-1]).to(processed.dtype)
        scaled = processed / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            smallest = scaled.topk(self.top_k, dim=-1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < smallest, -math.inf)
        if self.top_p is not None and self.top_p < 1:
            scaled = _keep_nucleus(scaled, self.top_p)
        return torch.softmax(scaled, dim=-1)


def _keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The smallest set of most probable tokens whose mass reaches ``top_p`` stays; the rest becomes -inf."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = torch.softmax(ordered, dim=-1)
    before = probs.cumsum(-1) - probs
    ordered = ordered.masked_fill(before >= top_p, -math.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulated probability passes ``uniforms``.

    ``probs`` (..., V), not necessarily summing to exactly 1; ``uniforms`` (...) in [0, 1); returns (...) int64. A token
    of probability zero is never returned, whatever the rounding; where all of them are NaN, some token is.
    """
    cumulated = probs.cumsum(-1)
    total = cumulated[..., -1:].contiguous()
    passed = torch.searchsorted(cumulated, uniforms.unsqueeze(-1).to(cumulated.dtype) * total, right=True)
    last_possible = torch.searchsorted(cumulated, total).clamp_(max=probs.shape[-1] - 1)
    return torch.minimum(passed, last_possible).squeeze(-1)


class RowStreams:
    """One stream of random numbers per row, so that a row's numbers do not depend on its neighbours."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    @classmethod
    def of(
        cls, generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int, device: torch.device
    ) -> RowStreams:
        """One generator gives one seed per row and moves on; a sequence of ``batch_size`` is used as it is.

        None takes the seeds from torch's global generator. Raises ValueError on a sequence of another length or device.
        """
        if isinstance(generator, torch.Generator) or generator is None:
            # One at a time: on an accelerator the numbers of a call depend on how many it draws.
            origin = torch.device("cpu") if generator is None else generator.device
            seeds = [int(torch.randint(2**62, (), generator=generator, device=origin)) for _ in range(batch_size)]
            return cls([torch.Generator(device).manual_seed(seed) for seed in seeds])
        if len(generator) != batch_size:
            raise ValueError(f"generator holds {len(generator)} generators for a batch of {batch_size} rows")
        elsewhere = [place for place, one in enumerate(generator) if one.device.type != device.type]
        if elsewhere:
            raise ValueError(f"generator {elsewhere[0]} is on another device than the models ({device.type})")
        return cls(generator)

    def replace(self, row: int, generator: torch.Generator) -> None:
        """Give a row another stream."""
        self.generators[row] = generator

    def draw(self, n: int, where: Sequence[bool]) -> Tensor:
        """(B, n) float32 in [0, 1): the next n numbers of the B rows whose flag is set, and zeros. The streams of the
        other rows stand still."""
        return torch.stack(
            [
                torch.rand(n, generator=generator, device=generator.device, dtype=torch.float32)
                if drawing
                else torch.zeros(n, device=generator.device, dtype=torch.float32)
                for generator, drawing in zip(self.generators, where, strict=True)
            ]
        )
