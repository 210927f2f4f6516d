"""One model alone, on the same loop, counter and clock as two: the baselines of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bild.policies.base import Policy
from bild.types import Draft, Review, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class LargeOnly(Policy):
    """The large model writes every token."""

    max_draft = 0

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        return Verdict(n_accepted=torch.zeros_like(draft.n_drafted), next_token=large.pick(uniforms)[:, 0])


@dataclass(frozen=True, kw_only=True)
class SmallOnly(Policy):
    """The small model writes every token: one draft up to EOS or the length limit, which nothing verifies."""

    uses_large = False
    max_draft = None
    verifies_all = False

    def review(self, draft: Draft, at_eos: Tensor, at_limit: Tensor) -> Review:
        return Review.standing(draft, at_eos | at_limit)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        raise AssertionError("a draft of the small model alone ends its row and is never verified")
