"""Confident adaptive language modeling (CALM; Schuster et al., NeurIPS 2022): one model, as deep as a token needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bild.policies.single import LargeOnly

CONFIDENCES = ("softmax", "cosine", "saturation")


@dataclass(frozen=True, kw_only=True)
class Calm(LargeOnly):
    """The large model writes every token, each from the first layer after which it is confident enough. What it was
    there is copied up: the layers above take their keys and values of it.

    Not here: CALM's trained classifier, and the calibration of the threshold. Raises ValueError on values outside the
    ranges given here.
    """

    confidence: Literal["softmax", "cosine", "saturation"] = "softmax"
    """what is compared with the threshold, section 3.5: "softmax" = the two largest probabilities of the layer's own
    prediction, apart; "cosine" = of the hidden state and the one a layer below; "saturation" = 1 less the length of
    their difference over that of the state, which also sees that a state still grows (ours)"""
    threshold: float = 0.9
    """>= 0; above 1 = every layer for every token"""
    decay: float | None = 4.0
    """>= 0, the decay's temperature in equation 5: the threshold of a token that stands behind a share s of the row's
    length limit is 0.9 threshold + 0.1 exp(-decay s), at most 1. None = the threshold as it is"""
    min_layers: int = 1
    """>= 1, layers of every token; 2 for confidences that compare layers"""

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"confidence={self.confidence!r} must be one of {', '.join(map(repr, CONFIDENCES))}")
        if not self.threshold >= 0:
            raise ValueError(f"threshold={self.threshold} must be a number >= 0 (above 1 = never leave)")
        if self.decay is not None and not self.decay >= 0:
            raise ValueError(f"decay={self.decay} must be a number >= 0, or None for a constant threshold")
        if isinstance(self.min_layers, bool) or not isinstance(self.min_layers, int) or self.min_layers < 1:
            raise ValueError(f"min_layers={self.min_layers} must be a whole number >= 1")

    @property
    def exits(self) -> Calm:
        return self

    @property
    def reads_logits(self) -> bool:
        return self.confidence == "softmax"

    @property
    def first_exit(self) -> int:
        return max(self.min_layers, 1 if self.reads_logits else 2)

    def leaves(self, hidden: Tensor, below: Tensor, logits: Tensor | None, share: Tensor) -> Tensor:
        return self._sure(hidden, below, logits) >= self._threshold_at(share)

    def _sure(self, hidden: Tensor, below: Tensor, logits: Tensor | None) -> Tensor:
        """(N,) how sure of each token."""
        if logits is not None:
            best = torch.softmax(logits, -1).topk(2, dim=-1).values
            return best[:, 0] - best[:, 1]
        if self.confidence == "cosine":
            return F.cosine_similarity(hidden, below, dim=-1)
        changed: Tensor = torch.linalg.vector_norm(hidden - below, dim=-1) / torch.linalg.vector_norm(hidden, dim=-1)
        return 1 - changed

    def _threshold_at(self, share: Tensor) -> Tensor | float:
        if self.decay is None or self.threshold > 1:
            return self.threshold
        return (0.9 * self.threshold + 0.1 * torch.exp(-self.decay * share)).clamp(max=1)
