"""The speculative step at one position in closed form, right and wrong, from the papers' formulas in plain Python; and
what a policy's own verification does there, found out without a sample.

q is the small model's distribution, p the large one's, ``target`` what tokens should follow. The closed forms share no
line with the decoder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bild.policies.base import Policy
from bild.sampling import Sampler
from bild.types import Draft, Scores, Steps

Masses = Sequence[float]
"""Probability of each token; together 1, or a share of it."""
CERTAIN = 1 - 2**-40
"""A uniform number that accepts only what is certain to stand."""


@dataclass(frozen=True)
class Views:
    """What both models say of a position."""

    q_plain: Masses
    p_plain: Masses
    q: Masses
    """that tokens are drawn from"""
    p: Masses

    @classmethod
    def of(cls, small: Tensor, large: Tensor, sampler: Sampler) -> Views:
        """(V,) processed logits."""
        plain = [torch.softmax(logits, -1).tolist() for logits in (small, large)]
        return cls(*plain, *(sampler.distribution(logits).tolist() for logits in (small, large)))


@dataclass(frozen=True)
class Step:
    """What a round writes at a drafted position and behind a full draft."""

    accepted: Masses
    """drafted there, and stands"""
    replaced: Masses
    """written in place of what was rejected; with ``accepted`` together 1"""
    bonus: Masses

    @property
    def written(self) -> Masses:
        return [sum(masses) for masses in zip(self.accepted, self.replaced, strict=True)]


def excess(p: Masses, q: Masses, beta: float = 1.0) -> Masses:
    return [max(0.0, theirs / beta - mine) for theirs, mine in zip(p, q, strict=True)]


def step_of(q: Masses, target: Masses, bonus: Masses, *, lenience: float = 0.0, weights: Masses | None = None) -> Step:
    """Leviathan et al., Algorithm 1 and appendix A.5; a rejected token is replaced from ``weights``, by default what
    the target has more than q, or from the target where they are all zero."""
    accepted = [min(mine, wanted / (1 - lenience)) for mine, wanted in zip(q, target, strict=True)]
    weights = excess(target, q) if weights is None else weights
    weights = weights if sum(weights) > 0 else target
    missing = max(0.0, 1 - sum(accepted))
    return Step(accepted, [missing * weight / sum(weights) for weight in weights], bonus)


def normalizing(q: Masses, p: Masses, lenience: float) -> float:
    """The beta >= 1 at which max(min(q, p / (1 - lenience)), p / beta) sums to 1: bisection."""
    low, high = 1.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        total = sum(max(min(a, b / (1 - lenience)), b / middle) for a, b in zip(q, p, strict=True))
        low, high = (middle, high) if total > 1 else (low, middle)
    return high


def lenient_step(views: Views, lenience: float, beta: float | str | None, power: float = 1.0) -> Step:
    """Speculative decoding; ``power`` other than 1 = its beta wrongly taken to that power."""
    number = normalizing(views.q, views.p, lenience) if beta == "normalized" else 1.0 if beta is None else beta
    return step_of(views.q, views.p, views.p, lenience=lenience, weights=excess(views.p, views.q, number**power))


def cascade_target(views: Views, rule: str, alpha: float) -> Masses:
    """The distribution that a rule of Narasimhan et al. makes of both."""
    q, p, sure, large_sure = views.q, views.p, max(views.q_plain), max(views.p_plain)
    distance = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    defer = {
        "chow": [sure < 1 - alpha] * len(q),
        "diff": [sure < large_sure - alpha] * len(q),
        "opt": [sure < large_sure - alpha * distance] * len(q),
        "bild": [views.p_plain[views.q_plain.index(sure)] < math.exp(-alpha)] * len(q),
        "token_v1": [prob < large_sure - alpha for prob in views.q_plain],
        "token_v2": [prob < large_sure - alpha for prob in views.p_plain],
        "token_v3": [prob < large_sure * (1 - alpha) for prob in views.p_plain],
    }[rule]
    handed_over = sum(prob for prob, defers in zip(q, defer, strict=True) if defers)
    return [(0.0 if defers else mine) + theirs * handed_over for mine, theirs, defers in zip(q, p, defer, strict=True)]


def with_the_rejecting_number(q: Masses, right: Step) -> Step:
    """Wrong: the number that has rejected a token, which is large then, also draws the replacement."""
    missing = sum(right.replaced)
    edges = [0.0, *itertools.accumulate(mass / missing if missing > 0 else 0.0 for mass in right.replaced)]
    begins = [0.0 if prob == 0 else mass / prob for mass, prob in zip(right.accepted, q, strict=True)]
    replaced = [
        sum(prob * max(0.0, high - max(low, begin)) for prob, begin in zip(q, begins, strict=True))
        for low, high in itertools.pairwise(edges)
    ]
    return Step(right.accepted, replaced, right.bonus)


# What the policy does


def verified_step(
    policy: Policy, small: Tensor, large: Tensor, sampler: Sampler, position: int, *, looked_ahead: bool
) -> list[Step]:
    """What ``verify`` writes at this drafted position, 0 or 1, of drafts of two tokens, and behind them, for each of N
    pairs of (N, 3, V) logits: every token that can be drafted there, and by bisection (to 1e-8) where among the uniform
    numbers its fate and its successor change."""
    q = sampler.distribution(small)
    pairs, vocab_size = q.shape[0], q.shape[-1]
    # Drafts of these stand at u = 0.
    agreed = torch.minimum(q, sampler.distribution(large)).argmax(-1)[:, :2]
    pair, token = q[:, position].nonzero().unbind(-1)
    drafts = agreed[pair].index_put((torch.arange(len(pair)), torch.tensor(position)), token)
    n, cuts = len(pair), torch.arange(1, vocab_size)
    # Three questions: does it stand, what replaces it, what follows if all stand.
    rows = torch.cat([pair, pair.repeat_interleave(len(cuts)), torch.arange(pairs).repeat_interleave(len(cuts))])
    tokens = torch.cat([drafts, *(one.repeat_interleave(len(cuts), 0) for one in (drafts, agreed))])
    cut = torch.cat([torch.zeros(n, dtype=torch.long), cuts.repeat(n + pairs)])
    uniforms = torch.zeros(len(rows), 3, dtype=torch.float64)
    uniforms[n : n + n * len(cuts), position] = CERTAIN
    varied = torch.where(cut == 0, position, 2)
    ask = _asked(policy, Scores(small[rows], small[rows], sampler), Scores(large[rows], large[rows], sampler), tokens,
                 looked_ahead)  # fmt: skip
    low, high = torch.zeros(len(rows), dtype=torch.float64), torch.ones(len(rows), dtype=torch.float64)
    for _ in range(28):
        middle = (low + high) / 2
        n_accepted, next_token = ask(uniforms.scatter(1, varied.unsqueeze(-1), middle.unsqueeze(-1)))
        beyond = torch.where(cut == 0, n_accepted <= position, next_token >= cut)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    high[(n_accepted < 2) & (torch.arange(len(rows)) >= n + n * len(cuts))] = torch.nan  # these should have stood
    share, follows, bonus = high.split([n, n * len(cuts), pairs * len(cuts)])
    drafted = q[:, position][pair, token]
    accepted, replaced = torch.zeros(2, pairs, vocab_size, dtype=torch.float64)
    accepted[pair, token] = drafted * share
    rejected = drafted * (1 - share)
    replaced.index_add_(0, pair, _between(follows.view(n, -1)) * rejected.unsqueeze(-1))
    masses = zip(accepted.tolist(), replaced.tolist(), _between(bonus.view(pairs, -1)).tolist(), strict=True)
    return [Step(*one) for one in masses]


def _between(bounds: Tensor) -> Tensor:
    """(R, V - 1) where the numbers of tokens 1, 2, ... begin, to (R, V) how many belong to each."""
    return torch.nn.functional.pad(torch.nn.functional.pad(bounds, (1, 0)), (0, 1), value=1.0).diff(dim=-1)


def _asked(policy: Policy, small: Scores, large: Scores, tokens: Tensor, looked_ahead: bool):
    """(R, 3) uniforms to (R,) tokens accepted and (R,) the one that follows."""
    rows = len(tokens)
    draft = Draft(
        tokens=tokens, n_drafted=torch.full((rows,), 2), stopped=torch.zeros(rows, dtype=torch.bool),
        looked_ahead=torch.full((rows,), looked_ahead), token_probs=torch.ones(rows, 2),
        small=Steps([small], 3, small.raw.shape[-1]),
    )  # fmt: skip

    def ask(uniforms: Tensor) -> tuple[Tensor, Tensor]:
        verdict = policy.verify(draft, large, uniforms)
        return verdict.n_accepted, verdict.next_token

    return ask
