"""The speculative step (Leviathan et al., ICML 2023, Algorithm 1): draws from a target what was drafted from another
distribution, and keeps as much of the draft as any such rule can.

Pure tensor functions; B rows, K drafted tokens, W = K + 1 positions, V vocabulary. Knows nothing of where a target
comes from. Of a row's K + 1 uniform numbers, number i decides about drafted token i and number ``n_drafted`` draws
the token that follows what was accepted; so none is used twice, and none depends on the other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bild.policies.positions import drafted_probs, first_true, is_drafted
from bild.sampling import inverse_cdf
from bild.tensors import at
from bild.types import Draft, Verdict


def leading(draft: Draft, accepts: Tensor) -> Tensor:
    """(B, K) bool, whether each token may stand, to (B,) int64: how many stand before the first that may not."""
    return first_true(~accepts & is_drafted(draft), otherwise=draft.n_drafted)


def accepted(draft: Draft, small_probs: Tensor, target_probs: Tensor, uniforms: Tensor, factor: float = 1.0) -> Tensor:
    """How many drafted tokens stand: token y with probability min(1, target(y) / (factor * small(y))).

    ``small_probs`` and ``target_probs`` (B, W, V), ``uniforms`` (B, W) in [0, 1); returns (B,) int64. A token that the
    target cannot write is never accepted.
    """
    drawn, wanted = drafted_probs(draft, small_probs), drafted_probs(draft, target_probs)
    return leading(draft, uniforms[:, : draft.tokens.shape[1]] * (factor * drawn) < wanted)


def residual(target_probs: Tensor, small_probs: Tensor) -> Tensor:
    """(B, V) of two distributions to (B, V) weights max(0, target - small): what a rejected token is replaced from.

    Where rounding has left nothing of it, the target itself.
    """
    left = (target_probs - small_probs).clamp(min=0)
    return torch.where(left.sum(-1, keepdim=True) > 0, left, target_probs)


def concluded(draft: Draft, n_accepted: Tensor, replacement: Tensor, bonus: Tensor, uniforms: Tensor) -> Verdict:
    """The verdict on a draft whose first ``n_accepted`` (B,) tokens stand: the next token is drawn from the
    ``replacement`` (B, V) weights if one was rejected, from those of the ``bonus`` if all were accepted."""
    weights = torch.where((n_accepted < draft.n_drafted).unsqueeze(-1), replacement, bonus)
    return Verdict(n_accepted=n_accepted, next_token=inverse_cdf(weights, at(uniforms, draft.n_drafted)))
