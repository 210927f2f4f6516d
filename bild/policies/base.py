"""What the round loop asks of a policy. A new policy is one file that answers this, and one test."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from bild.types import Draft, ExitRule, Review, Scores, StopRule, Verdict


class Policy(ABC):
    """Decides when a draft ends and what of it stands. Stateless: one object serves any number of calls.

    The answers given here are those of a policy that drafts ``max_draft`` tokens and has all of them verified.
    """

    @property
    def uses_small(self) -> bool:
        """The small model takes part."""
        return self.max_draft != 0

    @property
    def uses_large(self) -> bool:
        """The large model takes part."""
        return True

    @property
    @abstractmethod
    def max_draft(self) -> int | None:
        """Tokens drafted in a round at most; None = up to the length limit or a stopping criterion."""

    @property
    def large_first(self) -> bool:
        """The large model writes the first token of every row."""
        return False

    @property
    def keeps_scores(self) -> bool:
        """``verify`` reads what the small model said of every token: the draft holds it."""
        return False

    @property
    def verifies_all(self) -> bool:
        """No drafted token stands, an EOS included, but for what the large model says of it, however sure the small
        model was: what may draft, whatever its guesses are worth."""
        return True

    @property
    def looks_ahead(self) -> bool:
        """They reach one position beyond a draft that its cap has ended: one more small step."""
        return False

    @property
    def stop_rule(self) -> StopRule | None:
        """When a draft ends before its cap; None = never."""
        return None

    @property
    def exits(self) -> ExitRule | None:
        """When a token may leave the large model before its last layer; None = never."""
        return None

    @property
    def lossless(self) -> bool:
        """The text is the large model's by construction, whatever drafts: greedy token for token, sampled in law. Here:
        it writes every token, each from its last layer."""
        return self.max_draft == 0 and self.exits is None

    def check(self, *, greedy: bool) -> None:  # noqa: B027 (every mode is fine unless a policy says otherwise)
        """Raise ValueError where the policy cannot decode in this mode."""

    @property
    def draft_lengths(self) -> range:
        """What ``next_draft_length`` may come to, where drafts have a cap: what runners may prepare for."""
        return range(0) if self.max_draft is None else range(self.max_draft, self.max_draft + 1)

    def next_draft_length(self, length: int, n_drafted: int, n_accepted: int) -> int:
        """Tokens that a row may draft in its next round, at most ``max_draft``, after a round in which it could draft
        ``length``, did draft ``n_drafted``, and kept ``n_accepted``. A row's first round may draft ``max_draft``."""
        return length

    def review(self, draft: Draft, at_eos: Tensor, at_limit: Tensor) -> Review:
        """What is decided before the large model looks. Asked when a draft has reached the end of its row: (B,) bool
        whether at an EOS, or at the length limit or a stopping criterion."""
        return Review.standing(draft, torch.zeros_like(at_eos))

    @abstractmethod
    def verify(self, draft: Draft, large: Scores, uniforms: Tensor | None) -> Verdict:
        """Judge a draft. ``large`` scores the (B, K+1) positions of the draft and the one after it; ``uniforms`` is
        (B, K+1), None when greedy. Rows that drafted fewer than K tokens use their first ``n_drafted + 1`` columns.
        """


def check_draft_length(draft_length: object) -> None:
    """Raise ValueError unless it is a whole number >= 1."""
    if isinstance(draft_length, bool) or not isinstance(draft_length, int) or draft_length < 1:
        raise ValueError(f"draft_length={draft_length} must be a whole number >= 1")


def check_flag(name: str, value: object) -> None:
    """Raise ValueError unless it is True or False: any other value would count as one of them."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be true or false")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless the value of this field is one of the choices."""
    if value not in choices:
        *others, last = map(repr, choices)
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name}={value!r} must be {allowed}")


def check_number(name: str, value: float) -> None:
    """Raise ValueError on NaN: a comparison with it is never true."""
    if math.isnan(value):
        raise ValueError(f"{name}={value} must be a number")
