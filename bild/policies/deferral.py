"""When a cascade defers to the large model, token by token, and the distribution that this makes (speculative cascades,
Narasimhan et al., ICLR 2025).

Pure functions; B rows, W positions, V vocabulary. Maxima and single probabilities are plain ones, what is mixed is the
tempered distributions. Knows nothing of drafts.
"""

from __future__ import annotations

import math
from typing import Literal, assert_never, get_args

import torch
from torch import Tensor

from bild.types import Scores, Steps

Rule = Literal["chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "bild"]
RULES: tuple[Rule, ...] = get_args(Rule)


def defers(rule: Rule, alpha: float, small: Steps, large: Scores) -> Tensor:
    """Whether the large model decides: (B, W, 1) bool at each position, (B, W, V) for each token under a token rule.

    With small probabilities q and large ones p:

    - chow: max q < 1 - alpha
    - diff: max q < max p - alpha
    - opt: max q < max p - alpha * TV, total variation sum max(0, q - p)
    - bild: -log p(argmax q) > alpha, BiLD's rollback as a cascade
    - token_v1: q(v) < max p - alpha; token_v2: p(v) < max p - alpha; token_v3: p(v) < (1 - alpha) max p
    """
    sure, large_sure = small.confidence.unsqueeze(-1), large.confidence.unsqueeze(-1)
    match rule:
        case "chow":
            return sure < 1 - alpha
        case "diff":
            return sure < large_sure - alpha
        case "opt":
            return sure < large_sure - alpha * total_variation(small, large).unsqueeze(-1)
        case "bild":
            return -large.plain_of(small.choice).log().unsqueeze(-1) > alpha
        case "token_v1":
            return small.plain < large_sure - alpha
        case "token_v2":
            return large.plain < large_sure - alpha
        case "token_v3":
            return large.plain < (1 - alpha) * large_sure
    assert_never(rule)


def judges(rule: Rule, alpha: float) -> bool:
    """Whether a token that the large model rules out is deferred on, however sure the small model is of it.

    Then q(v) = 1, p(v) = 0 and the total variation is 1, while max p may be anything above 0: the rules that compare it
    with max q defer for certain where the difference that they ask for cannot be had, those that look at p(v) up to the
    alpha at which nothing is too improbable for them.
    """
    match rule:
        case "chow":
            return alpha < 0
        case "diff" | "opt" | "token_v1":
            return alpha <= -1
        case "token_v2":
            return alpha <= 0
        case "token_v3":
            return alpha < 1
        case "bild":
            return alpha < math.inf
    assert_never(rule)


def total_variation(small: Steps, large: Scores) -> Tensor:
    """(B, W) sum max(0, q - p) of the distributions that tokens are drawn from."""
    if large.sampler.greedy:
        return (small.choice != large.choice).to(large.processed.dtype)  # each is one token
    return (small.tempered - large.tempered).clamp(min=0).sum(-1)


def mixture(deferred: Tensor, small_probs: Tensor, large_probs: Tensor) -> Tensor:
    """(B, W, V) target: one of the two at each position; under a token rule, what the small model would have written
    and may not is shared out as the large one would have it: q(v) (1 - r(v)) + p(v) sum_u r(u) q(u)."""
    if deferred.shape[-1] == 1:
        return torch.where(deferred, large_probs, small_probs)
    handed_over = torch.where(deferred, small_probs, 0)
    return small_probs - handed_over + large_probs * handed_over.sum(-1, keepdim=True)


def greedy_mixture(deferred: Tensor, small_choice: Tensor, large_choice: Tensor) -> Tensor:
    """(B, W) the token that the target is sure of at temperature 0, where each model has one choice."""
    if deferred.shape[-1] > 1:
        deferred = deferred.gather(-1, small_choice.unsqueeze(-1))
    return torch.where(deferred.squeeze(-1), large_choice, small_choice)
