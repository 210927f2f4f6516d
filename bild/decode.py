"""The round loop: draft, verify, settle. It names no policy and no model.

What is written lives on the host; a step sends a runner the tokens that it has not seen and reads back what it decided,
once. The loop's own invariant: a row's last standing token is cached by neither model when a round begins. A model may
lag behind by more (a prompt, a draft, the two tokens after a full-length draft), and catches up in its next call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bild.drafter import Drafter
from bild.engine.runner import Runner, drafts_at_once, leaves_early
from bild.policies.base import Policy
from bild.reader import Reader
from bild.rows import Request, Rows
from bild.tensors import sent, to_host, where
from bild.trace import Recorder, with_layers
from bild.turn import Ruling, Turn
from bild.types import DecodeOutput, Draft, TokenTrace


class Decoder:
    """One call of ``generate``: two runners that have been prefilled, a policy, a request."""

    def __init__(self, large: Runner | None, small: Runner | None, policy: Policy, request: Request) -> None:
        self._policy = policy
        self._request = request
        self._device = request.prompt.device
        self._rows = rows = Rows(request)
        self._recorder = Recorder(len(request.prompt))
        # The large model's head decides which ids exist; without a large model, the small one's.
        self._vocab_size = next(runner.vocab_size for runner in (large, small) if runner is not None)
        self._readers = {
            name: Reader(runner, name, rows, request, self._vocab_size)
            for name, runner in (("large", large), ("small", small))
            if runner is not None
        }
        self._drafter = None
        if small is not None:
            verified = policy.uses_large  # a runner of it is there for a draft source, too
            self._drafter = Drafter(self._readers["small"], policy, request, rows, self._recorder, verified=verified)
        self._skip_draft = [policy.large_first] * len(request.prompt)
        self._draft_width = request.max_new_tokens if policy.max_draft is None else policy.max_draft
        self._draft_lengths = [self._draft_width] * len(request.prompt)
        self._get_ready()

    def _get_ready(self) -> None:
        """What the models will be asked in this call, for those that prepare for it."""
        longest = min(self._draft_width, self._request.max_new_tokens)
        cap = 0 if self._policy.max_draft is None else longest
        prompt = self._request.prompt.shape[1]
        large = self._readers.get("large")
        if large is not None and drafts_at_once(large.runner):
            large.runner.get_ready({*range(1, cap + 2), *range(prompt, prompt + cap + 1)}, ())
        if self._drafter is not None:
            lengths = {longest, *(length for length in self._policy.draft_lengths if length < longest)}
            self._drafter.get_ready(lengths, prompt)

    def run(self) -> DecodeOutput:
        """Decode every row to its end."""
        while any(self._rows.is_open):
            self.round()
        rows = range(len(self._rows.tokens))
        traces = [self._with_layers(row, trace) for row, trace in enumerate(self._recorder.traces())]
        parted, run = [self.parted(row) for row in rows], [self.small_steps_run(row) for row in rows]
        return DecodeOutput(self._rows.tensor(), self._recorder.stats(), traces, parted, run, self.drafts_at_once)

    @torch.inference_mode()  # operators take an eighth less to start than without gradients alone
    def round(self) -> list[int]:
        """One turn of both models for every open row. Returns the rows that it has closed."""
        rows, width = self._rows, self._draft_width
        was_open = list(rows.is_open)
        uniforms = self._draw_uniforms()
        turn = self._draft(uniforms)
        drafted = [row[start:] for row, start in zip(rows.tokens, turn.starts, strict=True)]
        draft = turn.as_draft(drafted, self._vocab_size, self._device)
        ruling = Ruling.standing(turn.n_drafted)
        verifying = self._review(turn, draft, ruling)
        if any(verifying):
            self._verify(turn, draft, verifying, ruling, None if uniforms is None else uniforms[:, width:])
        self._settle(turn, ruling)
        rows.show()
        return [row for row in where(was_open) if not rows.is_open[row]]

    def take(self, row: int) -> DecodeOutput:
        """What a closed row holds, as a batch of one."""
        stats, trace = self._recorder.take(row)
        sequences = torch.tensor([self._rows.tokens[row]], device=self._device)
        parted, run = self.parted(row), self.small_steps_run(row)
        if self._drafter is not None:
            self._drafter.steps_run[row] = 0
        return DecodeOutput(sequences, [stats], [self._with_layers(row, trace)], [parted], [run], self.drafts_at_once)

    def _with_layers(self, row: int, trace: list[TokenTrace]) -> list[TokenTrace]:
        """A closed row's trace, with the layers that each token took where tokens may leave early."""
        large = self._readers.get("large")
        if large is None or not leaves_early(large.runner):
            return trace
        return with_layers(trace, large.runner.depths[row][self._request.prompt.shape[1] - 1 :])

    def parted(self, row: int) -> tuple[str, ...]:
        """Who has read a row apart from others; see ``DecodeOutput``."""
        return tuple(name for name, reader in self._readers.items() if row in reader.runner.parted)

    def small_steps_run(self, row: int) -> int:
        """How many steps the small model has run for a row; see ``DecodeOutput``."""
        return 0 if self._drafter is None else self._drafter.steps_run[row]

    @property
    def drafts_at_once(self) -> bool:
        """Whole draft turns run at once; see ``DecodeOutput``."""
        return self._drafter is not None and self._drafter.at_once

    def reopen(self, row: int, name: int, generator: torch.Generator | None) -> None:
        """Begin anew in a row that has been taken, and whose runners have been restarted on a new source. ``name`` is
        the number that messages call it by."""
        self._rows.reopen(row, name, self._request.prompt[row].tolist())
        self._skip_draft[row] = self._policy.large_first
        self._draft_lengths[row] = self._draft_width
        if self._request.streams is not None and generator is not None:
            self._request.streams.replace(row, generator)

    def _draw_uniforms(self) -> Tensor | None:
        """(B, 2K+1) numbers of this round, as many as any course of it could use, so that streams never shift."""
        streams = self._request.streams
        return None if streams is None else streams.draw(2 * self._draft_width + 1, self._rows.is_open)

    def _draft(self, uniforms: Tensor | None) -> Turn:
        """Let the small model write in the rows that are open and do not skip it."""
        rows, turn = self._rows, Turn.begin(self._rows.lengths)
        if self._drafter is not None:
            lengths = [
                length if is_open and not skips else 0
                for length, is_open, skips in zip(self._draft_lengths, rows.is_open, self._skip_draft, strict=True)
            ]
            self._drafter.draft(turn, lengths, uniforms)
        return turn

    def _review(self, turn: Turn, draft: Draft, ruling: Ruling) -> list[bool]:
        """Ask the policy about drafts that have reached the end of their rows. Returns the rows to be verified."""
        rows = self._rows
        drafted = [count > 0 for count in turn.n_drafted]
        at_eos = [any_drafted and rows.is_eos(row[-1]) for any_drafted, row in zip(drafted, rows.tokens, strict=True)]
        at_limit = [
            any_drafted and (met or length >= rows.limit)
            for any_drafted, met, length in zip(drafted, turn.met, rows.lengths, strict=True)
        ]
        ended = where([eos or limit for eos, limit in zip(at_eos, at_limit, strict=True)])
        verifying = list(rows.is_open)
        if ended:
            flags = sent([at_eos, at_limit], self._device)
            review = self._policy.review(draft, flags[0], flags[1])
            settled, n_accepted, skip_draft = to_host(review.settled, review.n_accepted, review.skip_draft)
            for row in ended:
                if settled[row]:
                    verifying[row] = False
                    ruling.n_accepted[row], ruling.skip_draft[row] = n_accepted[row], skip_draft[row]
        return verifying

    def _verify(
        self, turn: Turn, draft: Draft, verifying: Sequence[bool], ruling: Ruling, uniforms: Tensor | None
    ) -> None:
        """One pass of the large model over the drafts, and the policy's verdict on them."""
        n_drafted = turn.n_drafted
        width = 1 + max(n_drafted[row] for row in where(verifying))
        if width <= draft.tokens.shape[1]:  # the longest is settled
            draft = draft.narrowed(width - 1)
        large = self._readers["large"]
        scores = large.read(verifying, n_drafted, width)
        verdict = self._policy.verify(draft, scores, None if uniforms is None else uniforms[:, :width])
        n_accepted, next_token, sure, skip_draft, ignores_eos = to_host(
            verdict.n_accepted, verdict.next_token, scores.confidence, verdict.skip_draft, verdict.ignores_eos
        )
        self._recorder.step("large", verifying)
        positions = [drafted + 1 if verified else 0 for drafted, verified in zip(n_drafted, verifying, strict=True)]
        large.check_numbers(sure, positions, lambda: scores)
        for row in where(verifying):
            ruling.n_accepted[row] = n_accepted[row]
            ruling.next_token[row] = next_token[row]
            ruling.skip_draft[row] = skip_draft is not None and skip_draft[row]
            ruling.ignores_eos[row] = ignores_eos is not None and ignores_eos[row]
            ruling.confidence[row] = sure[row][n_accepted[row]]

    def _settle(self, turn: Turn, ruling: Ruling) -> None:
        """Make the ruling stand: drop the rejected, append the large model's token, close rows, roll caches back."""
        rows = self._rows
        for row in where(rows.is_open):
            tokens, start, accepted = rows.tokens[row], turn.starts[row], ruling.n_accepted[row]
            drafted = tokens[start:]
            del tokens[start + accepted :]
            met = turn.met[row] and accepted == len(drafted)
            ended = met or (accepted > 0 and rows.is_eos(tokens[-1]))
            next_token = ruling.next_token[row]
            if not ended and next_token >= 0 and len(tokens) < rows.limit:
                tokens.append(next_token)
                ended = rows.is_eos(next_token) and not ruling.ignores_eos[row]
            unseen = start if self._policy.max_draft is not None else start + accepted
            ended = rows.meets_criteria(row, unseen) or ended or len(tokens) >= rows.limit
            rows.is_open[row] = not ended
            self._recorder.round(
                row,
                drafted=drafted,
                confidence=turn.confidence[row],
                stopped=turn.stopped[row],
                n_accepted=accepted,
                n_written=len(tokens) - start,
                next_token=next_token,
                large_confidence=ruling.confidence[row],
            )
            length, n_drafted = self._draft_lengths[row], len(drafted)
            self._draft_lengths[row] = self._policy.next_draft_length(length, n_drafted, accepted)
        self._skip_draft = ruling.skip_draft
        for reader in self._readers.values():
            reader.forget([length - 1 for length in rows.lengths])
