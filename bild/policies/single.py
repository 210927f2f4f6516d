"""One model alone, on the same loop, counter and clock as two: the baselines of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bild.types import Draft, Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class LargeOnly:
    """The large model writes every token."""

    uses_small = False
    uses_large = True
    max_draft = 0
    large_first = False
    verify_eos = True
    verify_full = True

    def check(self, *, greedy: bool) -> None:
        """Every mode is fine."""

    def stop(self, small_probs: Tensor, n_drafted: Tensor) -> Tensor:
        return torch.ones_like(n_drafted, dtype=torch.bool)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        return Verdict(
            n_accepted=torch.zeros_like(draft.n_drafted),
            next_token=large.pick(uniforms)[:, 0],
            skip_draft=torch.zeros_like(draft.stopped),
        )


@dataclass(frozen=True, kw_only=True)
class SmallOnly:
    """The small model writes every token: one draft up to EOS or the length limit, which nothing verifies."""

    uses_small = True
    uses_large = False
    max_draft = None
    large_first = False
    verify_eos = False
    verify_full = False

    def check(self, *, greedy: bool) -> None:
        """Every mode is fine."""

    def stop(self, small_probs: Tensor, n_drafted: Tensor) -> Tensor:
        return torch.zeros_like(n_drafted, dtype=torch.bool)

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        raise AssertionError("a draft of the small model alone ends its row and is never verified")
