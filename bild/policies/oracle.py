"""For analysis only: policies that ask both models at every step, so that they cost more than the large model alone.

What they show is how good a rule could be, and how often it needs the large model.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bild.policies.base import Policy, check_number
from bild.policies.deferral import defers
from bild.types import Draft, Scores, Verdict


class Oracle(Policy):
    """The small model writes one token; where a rule that sees both models says so, the large one writes another in its
    place."""

    @property
    def max_draft(self) -> int:
        return 1

    @abstractmethod
    def replaces(self, draft: Draft, large: Scores) -> Tensor:
        """(B,) bool, the large model writes. Rows that drafted nothing get it anyway."""

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        keeps = (draft.n_drafted == 1) & ~self.replaces(draft, large)
        first = large.at(torch.zeros_like(draft.n_drafted))
        written = first.pick(None if uniforms is None else uniforms[:, 0])
        return Verdict(n_accepted=keeps.long(), next_token=torch.where(keeps, -1, written))


@dataclass(frozen=True, kw_only=True)
class OracleDiff(Oracle):
    """For analysis: the large model writes where it is surer than the small one by more than alpha. Both are asked at
    every step, so it saves no time.

    Rule "diff" of the cascades, each token decided with both models at hand. Raises ValueError on NaN.
    """

    alpha: float
    """any number but NaN, a difference of largest probabilities"""

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    @property
    def keeps_scores(self) -> bool:
        return True

    @property
    def verifies_all(self) -> bool:
        return False

    def replaces(self, draft: Draft, large: Scores) -> Tensor:
        return defers("diff", self.alpha, draft.small, large)[:, 0, 0]


@dataclass(frozen=True, kw_only=True)
class OracleMixing(Oracle):
    """For analysis: the small model's token is replaced where the large model gives it too little probability. Both are
    asked at every step, so it saves no time.

    BiLD, Kim et al. 2023, Figure 2. Raises ValueError on values outside the range given here.
    """

    threshold: float
    """>= 0, a probability; 0 = never, above 1 = always"""

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"threshold={self.threshold} must be a probability >= 0 (0 = never replace)")

    @property
    def verifies_all(self) -> bool:
        return self.threshold > 0

    def replaces(self, draft: Draft, large: Scores) -> Tensor:
        tokens = torch.nn.functional.pad(draft.tokens, (0, 1))[:, :1]
        return large.plain_of(tokens)[:, 0] < self.threshold
