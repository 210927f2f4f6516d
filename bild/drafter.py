"""A draft turn: the small model writes, token after token, until something ends the row's turn.

Names no policy and no model; the policy's stop rule and the runner's logits are all that it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bild.policies.base import Policy
from bild.reader import Reader
from bild.rows import Rows
from bild.tensors import to_host, where
from bild.trace import Recorder
from bild.turn import Proposal, Turn


class Drafter:
    """The small model's side of the loop. ``verified``: there is a large model to go on where this one has nothing to
    say."""

    def __init__(self, reader: Reader, policy: Policy, rows: Rows, recorder: Recorder, *, verified: bool) -> None:
        self._reader = reader
        self._policy = policy
        self._rows = rows
        self._recorder = recorder
        self._verified = verified

    def draft(self, turn: Turn, lengths: Sequence[int], uniforms: Tensor | None) -> None:
        """Draft at most ``lengths`` tokens a row, none in those of length 0, until the stop rule, an EOS or the length
        limit ends the turn, or the small model has nothing to say. Without a cap stopping criteria end it too; else
        they wait for what verification leaves. ``uniforms`` (B, K+1): one column a step, the last behind a draft of K.
        """
        policy, drafting = self._policy, [length > 0 for length in lengths]
        step = 0
        while any(drafting):
            said = self._next(drafting, step, uniforms)
            self._recorder.step("small", drafting)
            if policy.keeps_scores:
                turn.kept.append(said.scores)
            if self._verified:
                for row in _silent(said, drafting):
                    drafting[row] = False
            self._reader.check_numbers(said.scores, said.confidence, [int(drafts) for drafts in drafting])
            for row in where(drafting):
                drafting[row] = self._goes_on(turn, row, said, lengths[row])
            step += 1

    def _next(self, drafting: Sequence[bool], step: int, uniforms: Tensor | None) -> Proposal:
        """The small model's view of the next position of the rows that draft, and what follows from it."""
        scores = self._reader.read(drafting, [0] * len(drafting), 1)
        n_drafted = torch.full((len(drafting),), step, device=scores.raw.device)
        written = scores.pick(None if uniforms is None else uniforms[:, step : step + 1])
        token_probs = scores.confidence if uniforms is None else scores.plain_of(written)
        stops = self._policy.stop(scores.plain[:, 0], n_drafted)
        return Proposal(scores, *to_host(stops, written[:, 0], scores.confidence, token_probs[:, 0]))

    def _goes_on(self, turn: Turn, row: int, said: Proposal, length: int) -> bool:
        """Put a row's next token down, unless it was only looked at. Returns whether the small model is asked again."""
        rows, tokens, drafted = self._rows, self._rows.tokens[row], turn.confidence[row]
        if len(drafted) == length:
            turn.looked_ahead[row] = True
            return False
        if said.stops[row]:
            turn.stopped[row] = True
            return False
        tokens.append(said.tokens[row])
        drafted += said.confidence[row]
        turn.token_probs[row].append(said.token_probs[row])
        turn.met[row] = self._policy.max_draft is None and rows.meets_criteria(row, len(tokens) - 1)
        if turn.met[row] or rows.is_eos(tokens[-1]) or len(tokens) >= rows.limit:
            return False
        return len(drafted) < length or self._policy.looks_ahead


def _silent(said: Proposal, drafting: Sequence[bool]) -> list[int]:
    """The rows without a draft to go on with: a source proposes nothing, or nothing that the processors allow."""
    unclear = [row for row in where(drafting) if said.confidence[row][0] != said.confidence[row][0]]
    return [row for row in unclear if bool((said.scores.processed[row] == -torch.inf).all())]
