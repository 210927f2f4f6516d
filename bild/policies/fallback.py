"""Fallback: the small model hands over where it is unsure (BiLD, Kim et al. 2023, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BelowFallback:
    """``StopRule``: the most probable token has less than ``threshold``."""

    threshold: float
    """a probability"""

    def __call__(self, small_probs: Tensor, n_drafted: Tensor) -> Tensor:
        return small_probs.amax(-1) < self.threshold
