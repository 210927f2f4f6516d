"""Speculative cascades (Narasimhan et al., ICLR 2025): a cascade's text at the cost of speculative decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from bild.policies.adaptive import AdaptiveDrafts
from bild.policies.base import check_choice, check_draft_length, check_number
from bild.policies.deferral import RULES, Rule, defers, greedy_mixture, judges, mixture
from bild.policies.speculation import accepted, concluded, leading, residual
from bild.tensors import at
from bild.types import Draft, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class SpeculativeCascade(AdaptiveDrafts):
    """A rule decides token by token which model writes; the higher its alpha, the more the small one does. The small
    model drafts, and the large model checks the whole draft against what the rule would have written.

    Run as speculative decoding is: the rule makes a target out of both distributions, and the speculative step draws
    from it. Raises ValueError on values outside the ranges given here.
    """

    rule: Rule = field(default="chow", metadata={"told": True})  # a label without it would say too little
    """when to defer to the large model; see ``bild.policies.deferral.defers``"""
    alpha: float
    """any number but NaN: the higher, the more the small model writes"""
    draft_length: int = 5
    """>= 1, tokens drafted in a round"""
    bonus: Literal["target", "large"] = "target"
    """what the token after a full draft is drawn from: "target" follows the rule there too, for one more small step;
    "large" is the large model"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rule", self.rule, RULES)
        check_number("alpha", self.alpha)
        check_draft_length(self.draft_length)
        check_choice("bonus", self.bonus, ("target", "large"))

    @property
    def max_draft(self) -> int:
        return self.draft_length

    @property
    def keeps_scores(self) -> bool:
        return True

    @property
    def verifies_all(self) -> bool:
        return judges(self.rule, self.alpha)

    @property
    def looks_ahead(self) -> bool:
        return self.bonus == "target"

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        small = draft.small
        deferred = defers(self.rule, self.alpha, small, large)
        rule_goes_on = draft.looked_ahead
        if uniforms is None:
            target = greedy_mixture(deferred, small.choice, large.choice)
            n_accepted = leading(draft, draft.tokens == target[:, :-1])
            follows = (n_accepted < draft.n_drafted) | rule_goes_on
            return Verdict(n_accepted, torch.where(follows, at(target, n_accepted), at(large.choice, n_accepted)))
        target = mixture(deferred, small.tempered, large.tempered)
        n_accepted = accepted(draft, small.tempered, target, uniforms)
        target_there = at(target, n_accepted)
        replacement = residual(target_there, at(small.tempered, n_accepted))
        bonus = torch.where(rule_goes_on.unsqueeze(-1), target_there, at(large.tempered, n_accepted))
        return concluded(draft, n_accepted, replacement, bonus, uniforms)
