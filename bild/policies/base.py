"""What the round loop asks of a policy. A new policy is one file that answers this, and one test."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from bild.types import Draft, Scores, Verdict


class Policy(Protocol):
    """Decides when a draft ends and what of it stands. Stateless: one object serves any number of calls."""

    @property
    def uses_small(self) -> bool:
        """The small model takes part."""

    @property
    def uses_large(self) -> bool:
        """The large model takes part."""

    @property
    def max_draft(self) -> int | None:
        """Tokens drafted in a round at most; None = up to the length limit."""

    @property
    def large_first(self) -> bool:
        """The large model writes the first token of every row."""

    @property
    def verify_eos(self) -> bool:
        """A draft that ends in EOS is verified; if not, it ends the row as it is."""

    @property
    def verify_full(self) -> bool:
        """A draft that reaches the length limit is verified; if not, it ends the row as it is."""

    def check(self, *, greedy: bool) -> None:
        """Raise ValueError where the policy cannot decode in this mode."""

    def stop(self, small_probs: Tensor, n_drafted: Tensor) -> Tensor:
        """Plain (B, V) of the small model and (B,) tokens drafted so far to (B,) bool: discard this one and stop.

        Never sees the drawn token, so that any stop rule composes with exact verification.
        """

    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        """Judge a draft. ``large`` scores the (B, K+1) positions of the draft and the one after it; ``uniforms`` is
        (B, K+1), None when greedy. Rows that drafted fewer than K tokens use their first ``n_drafted + 1`` columns.
        """
