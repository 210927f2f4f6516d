"""A draft turn: the small model writes, token after token, until something ends the row's turn.

Names no policy and no model; the policy's stop rule and the runner's logits are all that it asks for. A runner that
takes several steps at once is read once for all of them, and what lies behind the end of a row's turn is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bild.engine.runner import Asked, DraftRunner, drafts_at_once
from bild.policies.base import Policy
from bild.reader import Reader
from bild.rows import Request, Rows
from bild.sampling import Sampler
from bild.tensors import to_host, unfolded, where
from bild.trace import Recorder
from bild.turn import Proposal, Turn
from bild.types import Scores, StopRule

STEPS_AT_ONCE = 16  # at most; a whole turn unless drafts are longer


@dataclass(frozen=True)
class Chooser:
    """What a step of the small model comes to, as tensors; see ``bild.engine.runner.Choose``."""

    stop_rule: StopRule | None
    sampler: Sampler
    vocab_size: int

    def __call__(
        self, logits: Tensor, ids: Tensor | None, n_drafted: Tensor, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.of(self.scores(logits, ids), n_drafted, uniforms)

    def scores(self, logits: Tensor, ids: Tensor | None) -> Scores:
        """Logits (B, W, V) without processors."""
        raw = unfolded(logits, ids, self.vocab_size)
        return Scores(raw=raw, processed=raw, sampler=self.sampler, ids=ids)

    def of(self, scores: Scores, n_drafted: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, of (B, 1) positions."""
        tokens = scores.pick(uniforms)
        token_probs = scores.confidence if uniforms is None else scores.plain_of(tokens)
        drafted, rule = n_drafted.unsqueeze(1), self.stop_rule
        stops = torch.zeros_like(drafted, dtype=torch.bool) if rule is None else rule(scores, drafted)
        return stops, tokens, scores.confidence, token_probs


class Drafter:
    """The small model's side of the loop. ``verified``: there is a large model to go on where this one has nothing to
    say."""

    def __init__(
        self, reader: Reader, policy: Policy, request: Request, rows: Rows, recorder: Recorder, *, verified: bool
    ) -> None:
        self._reader = reader
        self._policy = policy
        self._rows = rows
        self._recorder = recorder
        self._verified = verified
        self._device = request.prompt.device
        self._chooser = Chooser(policy.stop_rule, request.sampler, reader.vocab_size)
        self._at_once: DraftRunner | None = None
        if drafts_at_once(reader.runner) and len(request.processors) == 0 and _is_a_value(policy.stop_rule):
            self._at_once = reader.runner
        self.steps_run = [0] * len(rows.tokens)
        """of each row, the steps that the small model has taken for it, dropped ones too"""

    @property
    def at_once(self) -> bool:
        """Whole draft turns run at once; see ``DecodeOutput.drafted_at_once``."""
        return self._at_once is not None

    def get_ready(self, lengths: Iterable[int], n_prompt: int) -> None:
        """Prepare for drafts of these lengths behind a prompt of ``n_prompt`` tokens."""
        if self._at_once is None:
            return
        longest = {length + self._policy.looks_ahead for length in lengths if length > 0}
        full = {STEPS_AT_ONCE for length in longest if length >= STEPS_AT_ONCE}
        steps = {length % STEPS_AT_ONCE for length in longest} - {0} | full
        size, device, greedy = len(self._rows.tokens), self._device, self._chooser.sampler.greedy
        asked = [Asked(n, 0, None if greedy else torch.zeros(size, n, device=device), self._chooser) for n in steps]
        # A model lags behind by its last token, and by the one that the large model wrote after it.
        self._at_once.get_ready((), [(width, one) for one in asked for width in {2, n_prompt}])

    def draft(self, turn: Turn, lengths: Sequence[int], uniforms: Tensor | None) -> None:
        """Draft at most ``lengths`` tokens a row, none in those of length 0, until the stop rule, an EOS or the length
        limit ends the turn, or the small model has nothing to say. Without a cap stopping criteria end it too; else
        they wait for what verification leaves. ``uniforms`` (B, K+1): one column a step, the last behind a draft of K.
        """
        policy, drafting = self._policy, [length > 0 for length in lengths]
        longest, step = max(lengths) + policy.looks_ahead, 0
        while any(drafting):
            said = self._next(drafting, step, longest, uniforms)
            if policy.keeps_scores:
                turn.kept.append(said.scores)
            for place in range(len(said.stops[0])):
                self._recorder.step("small", drafting)
                if self._verified:
                    for row in _silent(said, place, drafting):
                        drafting[row] = False
                upto = [place + 1 if drafts else 0 for drafts in drafting]
                self._reader.check_numbers(said.confidence, upto, said.view)
                for row in where(drafting):
                    drafting[row] = self._goes_on(turn, row, said, place, lengths[row])
                if not self._verified:
                    self._rows.show()  # nobody takes them back
                step += 1
                if not any(drafting):
                    break

    def _next(self, drafting: Sequence[bool], step: int, longest: int, uniforms: Tensor | None) -> Proposal:
        """The small model's view of the next position of the rows that draft, or of the next few, and what follows."""
        steps = 1 if self._at_once is None else min(longest - step, STEPS_AT_ONCE)
        numbers = None if uniforms is None else uniforms[:, step : step + steps]
        for row in where(drafting):
            self.steps_run[row] += steps
        if self._at_once is None:
            scores = self._reader.read(drafting, [0] * len(drafting), 1)
            n_drafted = torch.full((len(drafting),), step, device=scores.raw.device)
            return Proposal(lambda: scores, *to_host(*self._chooser.of(scores, n_drafted, numbers)))
        fed, unseen = self._reader.unseen(drafting)
        logits, said = self._at_once.draft(fed, unseen, Asked(steps, step, numbers, self._chooser))
        listed = self._at_once.listed
        return Proposal(lambda: self._chooser.scores(logits.clone(), listed), *said)

    def _goes_on(self, turn: Turn, row: int, said: Proposal, place: int, length: int) -> bool:
        """Put a row's next token down, unless it was only looked at. Returns whether the small model is asked again."""
        rows, tokens, drafted = self._rows, self._rows.tokens[row], turn.confidence[row]
        if len(drafted) == length:
            turn.looked_ahead[row] = True
            return False
        if said.stops[row][place]:
            turn.stopped[row] = True
            return False
        tokens.append(int(said.tokens[row][place]))
        drafted.append(said.confidence[row][place])
        turn.token_probs[row].append(said.token_probs[row][place])
        turn.met[row] = self._policy.max_draft is None and rows.meets_criteria(row, len(tokens) - 1)
        if turn.met[row] or rows.is_eos(tokens[-1]) or len(tokens) >= rows.limit:
            return False
        return len(drafted) < length or self._policy.looks_ahead


def _silent(said: Proposal, place: int, drafting: Sequence[bool]) -> list[int]:
    """The rows without a draft to go on with: a source proposes nothing, or nothing that the processors allow."""
    unclear = [row for row in where(drafting) if said.confidence[row][place] != said.confidence[row][place]]
    return [row for row in unclear if bool((said.scores.processed[row, place] == -torch.inf).all())]


def _is_a_value(rule: StopRule | None) -> bool:
    """Whether equal rules decide alike, now and later: what is recorded of one may be replayed for the other."""
    if rule is None:
        return True
    parameters = vars(type(rule)).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return False
    try:
        hash(rule)
    except TypeError:  # a field may change
        return False
    return True
