"""Cascades in which nothing is verified: the large model is asked for a token, or for a whole text, where the small one
is unsure (Chow's rule)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bild.policies.base import Policy, check_choice, check_draft_length, check_number
from bild.policies.fallback import BelowFallback
from bild.policies.positions import is_drafted
from bild.tensors import at
from bild.types import Draft, Review, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class TokenCascade(Policy):
    """The small model writes until it is unsure, or its turn is full; there the large model writes one token. Nothing
    is verified.

    Raises ValueError on values outside the ranges given here.
    """

    rule: Literal["chow"] = "chow"
    """"chow": defer where the small model's largest probability is below 1 - alpha"""
    alpha: float
    """any number but NaN; below 0 = always defer"""
    draft_length: int = 10
    """>= 1, tokens that the small model writes in a turn at most"""

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, ("chow",))
        check_number("alpha", self.alpha)
        check_draft_length(self.draft_length)

    @property
    def max_draft(self) -> int:
        return 0 if self.alpha < 0 else self.draft_length

    @property
    def verifies_all(self) -> bool:
        return False

    @property
    def stop_rule(self) -> BelowFallback:
        return BelowFallback(1 - self.alpha)

    def review(self, draft: Draft, at_eos: Tensor, at_limit: Tensor) -> Review:
        return Review.standing(draft, at_eos | at_limit)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        numbers = None if uniforms is None else at(uniforms, draft.n_drafted)
        return Verdict(n_accepted=draft.n_drafted, next_token=large.at(draft.n_drafted).pick(numbers))


@dataclass(frozen=True, kw_only=True)
class SequenceCascade(Policy):
    """The small model writes a whole text; where its confidence in it is too low, the large model writes another one,
    alone (Chow's rule for sequences). The large model never looks at what is kept.

    Raises ValueError on values outside the ranges given here.
    """

    threshold: float
    """nats, <= 0: a text whose score is lower is written again; -inf = never. The score is the mean of the small
    model's log-probabilities of its tokens, EOS included."""
    quantile: float | None = None
    """in [0, 1]: their quantile is the score instead, linear between tokens; 0 = the least probable token"""

    def __post_init__(self) -> None:
        if not self.threshold <= 0:
            raise ValueError(f"threshold={self.threshold} must be a log-probability <= 0 (-inf = keep every text)")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile={self.quantile} must be in [0, 1], or None for the mean")

    @property
    def max_draft(self) -> None:
        return None

    @property
    def verifies_all(self) -> bool:
        return False

    def review(self, draft: Draft, at_eos: Tensor, at_limit: Tensor) -> Review:
        redone = confidence_of_texts(draft, self.quantile) < self.threshold
        return Review(settled=at_eos | at_limit, n_accepted=torch.where(redone, 0, draft.n_drafted), skip_draft=redone)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        """Only rows whose text is being written again come here."""
        column = torch.zeros_like(draft.n_drafted)
        return Verdict(
            n_accepted=column,
            next_token=large.at(column).pick(None if uniforms is None else uniforms[:, 0]),
            skip_draft=torch.ones_like(draft.stopped),
        )


def confidence_of_texts(draft: Draft, quantile: float | None) -> Tensor:
    """(B,) nats: the mean, or a quantile, of the small model's plain log-probabilities of what it drafted."""
    # What float32 rounds to zero counts as the least that it holds.
    log_probs = draft.token_probs.clamp(min=torch.finfo(draft.token_probs.dtype).tiny).log()
    if quantile is None:
        return torch.where(is_drafted(draft), log_probs, 0).sum(-1) / draft.n_drafted
    ordered = torch.where(is_drafted(draft), log_probs, torch.inf).sort(dim=-1).values
    place = quantile * (draft.n_drafted - 1).clamp(min=0).to(log_probs.dtype)
    below, above = place.floor().long(), place.ceil().long()
    return torch.lerp(at(ordered, below), at(ordered, above), place - below)
