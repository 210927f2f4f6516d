"""Speculative decoding (Leviathan et al., ICML 2023): the small model drafts, the text is the large model's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bild.policies.adaptive import AdaptiveDrafts
from bild.policies.base import check_draft_length
from bild.policies.positions import drafted_probs
from bild.policies.speculation import accepted, concluded, leading, residual
from bild.tensors import at
from bild.types import Draft, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class Speculative(AdaptiveDrafts):
    """The large model checks every draft; the first token that it does not accept is replaced by one of its own.
    Without lenience the text is the large model's, whatever drafts: greedy token for token, sampled in distribution.

    Algorithm 1: a drafted token stands with probability min(1, p / q), and what replaces it makes up for the rest.
    Greedy: tokens stand while they are the large model's first choice.

    With ``lenience`` l (appendix A.5) a token stands with probability min(1, p / ((1 - l) q)), greedy: if the large
    model gives it at least 1 - l of its largest probability. The output then leans towards the small model. Raises
    ValueError on values outside the ranges given here.
    """

    draft_length: int = 5
    """>= 1, tokens drafted in a round"""
    lenience: float = 0.0
    """in [0, 1), 0 = lossless"""
    beta: float | Literal["normalized"] | None = None
    """what replaces a rejected token is drawn from max(0, p / beta - q): None = 1, as in Leviathan et al.; a number
    >= 1 - lenience, finite; "normalized" = at every position the one of ``normalizer``, for sampling with lenience"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_draft_length(self.draft_length)
        if not 0 <= self.lenience < 1:
            raise ValueError(f"lenience={self.lenience} must be in [0, 1) (0 = lossless)")
        if isinstance(self.beta, str):
            if self.beta != "normalized":
                raise ValueError(f"beta={self.beta!r} must be 'normalized', a number or None")
        elif self.beta is not None and not 1 - self.lenience <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta} must be at least 1 - lenience = {1 - self.lenience:g}, and finite")

    @property
    def max_draft(self) -> int:
        return self.draft_length

    @property
    def lossless(self) -> bool:
        return self.lenience == 0 and self.beta in (None, 1, "normalized")  # which is 1 without lenience

    @property
    def keeps_scores(self) -> bool:
        return True

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        if uniforms is None:
            n_accepted = leading(draft, self._greedily_accepts(draft, large))
            return Verdict(n_accepted=n_accepted, next_token=at(large.choice, n_accepted))
        small_probs, large_probs = draft.small.tempered, large.tempered
        n_accepted = accepted(draft, small_probs, large_probs, uniforms, factor=1 - self.lenience)
        small_there, large_there = at(small_probs, n_accepted), at(large_probs, n_accepted)
        return concluded(draft, n_accepted, self._replacement(small_there, large_there), large_there, uniforms)

    def _greedily_accepts(self, draft: Draft, large: Scores) -> Tensor:
        """(B, K) bool."""
        if self.lenience == 0:
            return draft.tokens == large.choice[:, :-1]
        return drafted_probs(draft, large.plain) >= (1 - self.lenience) * large.confidence[:, :-1]

    def _replacement(self, small_probs: Tensor, large_probs: Tensor) -> Tensor:
        """(B, V) weights."""
        if self.beta is None:
            return residual(large_probs, small_probs)
        beta = normalizer(small_probs, large_probs, self.lenience) if isinstance(self.beta, str) else self.beta
        return residual(large_probs / beta, small_probs)


def normalizer(small_probs: Tensor, large_probs: Tensor, lenience: float) -> Tensor:
    """The beta of each row for which max(0, p / beta - q) holds exactly the mass that acceptance leaves over, so that
    it is added to what is accepted without being rescaled (Narasimhan et al., ICLR 2025, lossy speculative decoding).

    A drafted token v is accepted with mass q(v) min(1, p(v) / ((1 - l) q(v))) = min(q(v), p(v) / (1 - l)); all tokens
    together leave R = sum max(0, q - p / (1 - l)). With t = 1 / beta, Z(t) = sum max(0, t p - q) is convex and rises
    from Z(0) = 0 to Z(1) = sum max(0, p - q) = sum max(0, q - p) >= R, so Z(t) = R has a solution t <= 1. A token that
    gets something from the residual has q < t p <= p / (1 - l), so all of its draws were accepted, and the output
    follows max(min(q, p / (1 - l)), p / beta): the sum of the two is a maximum, and is 1.

    Z is linear between the ratios q(v) / p(v). Taken in ascending order, the first k tokens contribute t P_k - Q_k,
    cumulated p and q; k is the number of ratios at which Z is below R, and t = (R + Q_k) / P_k.

    Args:
        small_probs, large_probs: (B, V) distributions q and p.
        lenience: l, in [0, 1).

    Returns:
        (B, 1) beta >= 1.
    """
    remaining = (small_probs - large_probs / (1 - lenience)).clamp(min=0).sum(-1, keepdim=True)
    ratios = torch.where(large_probs > 0, small_probs / large_probs, torch.inf)
    ratios, order = ratios.sort(dim=-1)
    small_below, large_below = small_probs.gather(-1, order).cumsum(-1), large_probs.gather(-1, order).cumsum(-1)
    count = (ratios * large_below - small_below < remaining).sum(-1, keepdim=True)
    last = (count - 1).clamp(min=0)
    return large_below.gather(-1, last) / (remaining + small_below.gather(-1, last))
