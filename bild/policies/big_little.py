"""Big Little Decoder (Kim et al., NeurIPS 2023): fallback and rollback as one policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bild.policies.adaptive import AdaptiveDrafts
from bild.policies.base import check_choice, check_draft_length
from bild.policies.fallback import BelowFallback
from bild.policies.rollback import authors_rule, paper_rule
from bild.types import Draft, Review, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class BigLittle(AdaptiveDrafts):
    """The small model drafts tokens for as long as it is sure of them. Where it is not, the large model writes one (a
    fallback); it also checks every draft and replaces what surprises it (a rollback).

    Raises ValueError on values outside the ranges given here.
    """

    fallback: float = 0.6
    """>= 0, a probability: drafting stops where the small model's largest is lower; above 1 = never draft"""
    rollback: float = 2.0
    """>= 0, nats: a drafted token whose cross-entropy under the large model is higher may be replaced; inf = never"""
    draft_length: int = 10
    """>= 1, tokens drafted in a round at most"""
    verify_eos: bool = False
    """verify a draft that ends in EOS; Algorithm 1 lets it end the row as it is"""
    rule: Literal["paper", "authors"] = "paper"
    """"paper" = Algorithm 1; "authors" = their published loop, token for token, greedy only"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fallback >= 0:
            raise ValueError(f"fallback={self.fallback} must be a probability >= 0 (above 1 = never draft)")
        if not self.rollback >= 0:
            raise ValueError(f"rollback={self.rollback} must be a number of nats >= 0 (inf = never roll back)")
        check_draft_length(self.draft_length)
        check_choice("rule", self.rule, ("paper", "authors"))
        if self.rule == "authors" and self.verify_eos:
            raise ValueError("rule='authors' never verifies a drafted EOS; use rule='paper' with verify_eos=True")
        if self.rule == "authors" and self.adaptive:
            raise ValueError("rule='authors' drafts as its authors' loop does; use rule='paper' with adaptive=True")

    @property
    def max_draft(self) -> int:
        return 0 if self.fallback > 1 else self.draft_length

    @property
    def lossless(self) -> bool:
        is_judged = self.rule == "paper" and self.rollback == 0 and self.verify_eos
        return is_judged or super().lossless

    @property
    def large_first(self) -> bool:
        return self.rule == "authors"

    @property
    def stop_rule(self) -> BelowFallback:
        return BelowFallback(self.fallback)

    @property
    def verifies_all(self) -> bool:
        return self.verify_eos and self.rollback < math.inf

    def check(self, *, greedy: bool) -> None:
        if self.rule == "authors" and not greedy:
            raise ValueError("rule='authors' is greedy only; use rule='paper' or do_sample=False")

    def review(self, draft: Draft, at_eos: Tensor, at_limit: Tensor) -> Review:
        ends = at_eos & (not self.verify_eos)
        return Review.standing(draft, ends | at_limit if self.rule == "authors" else ends)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        if self.rule == "authors":
            return authors_rule(draft, large, self.rollback)
        return paper_rule(draft, large, uniforms, self.rollback)
