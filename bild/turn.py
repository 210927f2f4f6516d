"""What a round has come to so far: numbers of each row on the host, and as the tensors that policies work on.

B rows, K the longest draft of the round, V the vocabulary. Knows no model and no policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from bild.tensors import sent
from bild.types import Draft, Scores, Steps


@dataclass(frozen=True)
class Proposal:
    """The next step of the small model, or the next few: (B, N) of everything."""

    view: Callable[[], Scores]
    """of the model's logits, good until it goes on"""
    stops: list[list[float]]
    """not 0 where the stop rule discards what it wrote"""
    tokens: list[list[float]]
    confidence: list[list[float]]
    """its largest plain probability there"""
    token_probs: list[list[float]]
    """its plain probability of the token"""

    @cached_property
    def scores(self) -> Scores:
        """What it said, for good."""
        return self.view()


@dataclass(frozen=True)
class Turn:
    """What the small model did, per row."""

    starts: list[int]
    """tokens of the row before it"""
    stopped: list[bool]
    """the stop rule ended it"""
    met: list[bool]
    """a stopping criterion ended it"""
    looked_ahead: list[bool]
    """its cap ended it, and the small model was asked one position further"""
    confidence: list[list[float]]
    """the small model's largest plain probability at each drafted token"""
    token_probs: list[list[float]]
    """its plain probability of the token itself"""
    kept: list[Scores] = field(default_factory=list)
    """(B, N) positions of each stretch of steps, where the policy keeps them"""

    @classmethod
    def begin(cls, starts: list[int]) -> Turn:
        """Nothing is drafted yet."""
        count = len(starts)
        stopped, met, looked_ahead = ([False] * count for _ in range(3))
        return cls(starts, stopped, met, looked_ahead, [[] for _ in starts], [[] for _ in starts])

    @property
    def n_drafted(self) -> list[int]:
        return [len(row) for row in self.confidence]

    def as_draft(self, drafted: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> Draft:
        """As a policy sees it; ``drafted`` are the B rows' tokens."""
        longest = max(map(len, drafted))
        facts = zip(drafted, self.stopped, self.looked_ahead, strict=True)
        numbers = sent(
            [[*row, *[0] * (longest - len(row)), len(row), stopped, looked] for row, stopped, looked in facts],
            device,
            torch.long,
        )
        probs = [row + [0.0] * (longest - len(row)) for row in self.token_probs]
        flags = numbers[:, longest + 1 :].bool()
        return Draft(
            tokens=numbers[:, :longest],
            n_drafted=numbers[:, longest],
            stopped=flags[:, 0],
            looked_ahead=flags[:, 1],
            token_probs=sent(probs, device, torch.float32),
            small=Steps(self.kept, longest + 1, vocab_size),
        )


@dataclass(frozen=True)
class Ruling:
    """What becomes of a turn, per row."""

    n_accepted: list[int]
    next_token: list[int]
    """-1 = none"""
    skip_draft: list[bool]
    ignores_eos: list[bool]
    confidence: list[float]
    """the large model's largest plain probability where it wrote its token"""

    @classmethod
    def standing(cls, n_drafted: list[int]) -> Ruling:
        """Every draft stands whole."""
        count = len(n_drafted)
        return cls(list(n_drafted), [-1] * count, [False] * count, [False] * count, [float("nan")] * count)
