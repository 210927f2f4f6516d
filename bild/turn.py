"""What a round has come to so far: numbers of each row on the host, and as the tensors that policies work on.

B rows, K the longest draft of the round, V the vocabulary. Knows no model and no policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bild.types import Draft, Scores, Steps


@dataclass(frozen=True)
class Proposal:
    """The next step of the small model, or the next few: (B, N) of everything."""

    scores: Scores
    stops: list[list[float]]
    """not 0 where the stop rule discards what it wrote"""
    tokens: list[list[float]]
    confidence: list[list[float]]
    """its largest plain probability there"""
    token_probs: list[list[float]]
    """its plain probability of the token"""


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

    def as_draft(self, tokens: Tensor, vocab_size: int) -> Draft:
        """As a policy sees it; ``tokens`` (B, K) are what was drafted."""
        device, (rows, longest) = tokens.device, tokens.shape
        stopped, looked_ahead = torch.tensor([self.stopped, self.looked_ahead], device=device)
        probs = [row + [0.0] * (longest - len(row)) for row in self.token_probs]
        return Draft(
            tokens=tokens,
            n_drafted=torch.tensor(self.n_drafted, device=device),
            stopped=stopped,
            looked_ahead=looked_ahead,
            token_probs=torch.tensor(probs, device=device).view(rows, longest),
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
