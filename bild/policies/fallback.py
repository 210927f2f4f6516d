"""Fallback: the small model hands over where it is unsure (BiLD, Kim et al. 2023, section 3.2)."""

from __future__ import annotations

from torch import Tensor


def below_fallback(small_probs: Tensor, fallback: float) -> Tensor:
    """(B, V) plain probabilities to (B,) bool: the most probable token has less than ``fallback``."""
    return small_probs.amax(-1) < fallback
