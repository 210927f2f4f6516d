"""Rollback: where a draft is too surprising for the large model (BiLD, Kim et al. 2023, section 3.3).

Pure tensor functions; B rows, K drafted tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bild.policies.positions import first_true, is_drafted
from bild.tensors import at
from bild.types import Draft, Scores, Verdict


def over_threshold(draft: Draft, large_log_probs: Tensor, rollback: float) -> Tensor:
    """(B, K) bool: drafted tokens whose cross-entropy under the large model, from their (B, K) log-probabilities,
    exceeds ``rollback`` nats."""
    return (-large_log_probs > rollback) & is_drafted(draft)


def paper_rule(draft: Draft, large: Scores, uniforms: Tensor | None, rollback: float) -> Verdict:
    """Algorithm 1 of the paper: the first drafted token that is over the threshold, and that the large model would not
    write itself, is replaced by the large model's token, and what follows it goes. Without one, the large model's next
    token is appended.

    Greedy and sampling are one rule: the large model's token is its argmax or a draw from its tempered distribution.
    """
    width = draft.tokens.shape[1]
    choice = large.pick(uniforms)
    over = over_threshold(draft, large.log_plain_of(draft.tokens), rollback)
    n_accepted = first_true(over & (choice[:, :width] != draft.tokens), otherwise=draft.n_drafted)
    return Verdict(n_accepted=n_accepted, next_token=at(choice, n_accepted))


def authors_rule(draft: Draft, large: Scores, rollback: float) -> Verdict:
    """What the authors' published loop does (``T5BiLDModel._greedy_search_body``), greedy only.

    Only the first position over the threshold is examined, on raw logits. If the raw argmax agrees with the draft
    there, all of it stands and the processed argmax follows; if not, the raw argmax replaces it and the large model
    goes again.
    """
    raw = large.unprocessed
    choice = raw.choice
    over = over_threshold(draft, raw.log_plain_of(draft.tokens), rollback)
    first_over = first_true(over, otherwise=draft.n_drafted)
    token_there = at(torch.nn.functional.pad(draft.tokens, (0, 1)), first_over)
    rolls_back = (first_over < draft.n_drafted) & (at(choice, first_over) != token_there)
    n_accepted = torch.where(rolls_back, first_over, draft.n_drafted)
    next_token = torch.where(rolls_back, at(choice, n_accepted), at(large.choice, n_accepted))
    return Verdict(n_accepted=n_accepted, next_token=next_token, skip_draft=rolls_back, ignores_eos=rolls_back)
