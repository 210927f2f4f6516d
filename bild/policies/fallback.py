"""Fallback: the small model hands over where it is unsure (BiLD, Kim et al. 2023, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bild.types import Scores


@dataclass(frozen=True)
class BelowFallback:
    """``StopRule``: the most probable token has less than ``threshold``."""

    threshold: float
    """a probability"""

    def __call__(self, small: Scores, n_drafted: Tensor) -> Tensor:
        return small.confidence < self.threshold
