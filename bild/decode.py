"""The round loop: draft, verify, settle. It names no policy and no model.

The loop's own invariant: a row's last standing token is cached by neither model when a round begins. A model may lag
behind by more (a prompt, a draft, the two tokens after a full-length draft), and catches up in its next call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bild.engine.runner import Runner
from bild.policies.base import Policy
from bild.processors import process
from bild.rows import Request, Rows
from bild.trace import Recorder
from bild.types import Draft, Scores, Verdict


class Decoder:
    """One call of ``generate``: two runners that have been prefilled, a policy, a request."""

    def __init__(self, large: Runner | None, small: Runner | None, policy: Policy, request: Request) -> None:
        self._large = large
        self._small = small
        self._policy = policy
        self._request = request
        self._rows = Rows(request)
        self._recorder = Recorder(len(request.prompt))
        self._skip_draft = torch.full_like(self._rows.is_open, policy.large_first)
        self._draft_width = request.max_new_tokens if policy.max_draft is None else policy.max_draft

    def run(self) -> tuple[Tensor, Recorder]:
        """Decode every row to its end. Returns (B, T) padded sequences and what was recorded on the way."""
        rows = self._rows
        while bool(rows.is_open.any()):
            uniforms = self._draw_uniforms()
            start = rows.lengths
            draft = self._draft(start, None if uniforms is None else uniforms[:, : self._draft_width])
            verifying = rows.is_open & ~self._ends_unverified(draft)
            verdict, large_confidence = self._verify(
                draft, start, verifying, None if uniforms is None else uniforms[:, self._draft_width :]
            )
            self._settle(draft, verdict, start, verifying, large_confidence)
            if self._request.on_settled is not None:
                self._request.on_settled(rows.tokens[0, int(start[0]) : int(rows.lengths[0])])
        return self._sequences(), self._recorder

    def _draw_uniforms(self) -> Tensor | None:
        """(B, 2K+1) numbers of this round, as many as any course of it could use, so that streams never shift."""
        streams = self._request.streams
        return None if streams is None else streams.draw(2 * self._draft_width + 1, self._rows.is_open)

    def _draft(self, start: Tensor, uniforms: Tensor | None) -> Draft:
        """Let the small model write until its stop rule, its cap, an EOS or the length limit ends the turn."""
        rows, policy = self._rows, self._policy
        budget = (rows.limit - start).clamp(max=self._draft_width)
        drafting = rows.is_open & ~self._skip_draft & (budget > 0)
        n_drafted, stopped = torch.zeros_like(start), torch.zeros_like(rows.is_open)
        confidence: list[Tensor] = []
        while bool(drafting.any()):
            scores = self._extend(self._small, "small", drafting, torch.zeros_like(start), 1)
            plain = scores.plain[:, 0]
            stops = drafting & policy.stop(plain, n_drafted)
            column = None if uniforms is None else uniforms[:, len(confidence), None]
            tokens = scores.pick(column)[:, 0]
            self._recorder.step("small", drafting)
            drafting = drafting & ~stops
            rows.write(tokens, drafting)
            stopped = stopped | stops
            n_drafted = n_drafted + drafting
            confidence.append(plain.amax(-1))
            drafting = drafting & ~rows.is_eos(tokens) & (n_drafted < budget)
        width = int(n_drafted.max())
        return Draft(
            tokens=rows.span(start, width),
            n_drafted=n_drafted,
            stopped=stopped,
            confidence=torch.stack(confidence, 1)[:, :width] if width > 0 else rows.tokens[:, :0].float(),
        )

    def _ends_unverified(self, draft: Draft) -> Tensor:
        """(B,) bool: rows that their draft has ended and that the policy lets go as they are."""
        rows, policy = self._rows, self._policy
        ends = torch.zeros_like(rows.is_open)
        if not policy.verify_eos:
            ends |= rows.is_eos(rows.last())
        if not policy.verify_full:
            ends |= rows.lengths >= rows.limit
        return ends & (draft.n_drafted > 0)

    def _verify(
        self, draft: Draft, start: Tensor, verifying: Tensor, uniforms: Tensor | None
    ) -> tuple[Verdict, Tensor]:
        """One pass of the large model over the drafts, and the policy's verdict; rows not verified stand whole.

        The second value is (B,): the large model's largest plain probability where it wrote its token.
        """
        nothing = torch.full_like(start, -1)
        if not bool(verifying.any()):
            whole = Verdict(draft.n_drafted, nothing, torch.zeros_like(verifying))
            return whole, torch.full_like(start, torch.nan, dtype=torch.float32)
        width = draft.tokens.shape[1] + 1
        scores = self._extend(self._large, "large", verifying, draft.n_drafted, width)
        self._recorder.step("large", verifying)
        verdict = self._policy.verify(draft, scores, None if uniforms is None else uniforms[:, :width])
        n_accepted = torch.where(verifying, verdict.n_accepted, draft.n_drafted)
        confidence = scores.plain.amax(-1).gather(1, n_accepted.unsqueeze(-1)).squeeze(-1)
        return Verdict(
            n_accepted=n_accepted,
            next_token=torch.where(verifying, verdict.next_token, nothing),
            skip_draft=verifying & verdict.skip_draft,
        ), confidence

    def _settle(
        self, draft: Draft, verdict: Verdict, start: Tensor, verifying: Tensor, large_confidence: Tensor
    ) -> None:
        """Make the verdict stand: drop the rejected, append the large model's token, close rows, roll caches back."""
        rows, was_open = self._rows, self._rows.is_open
        rows.lengths = start + verdict.n_accepted
        ended = (verdict.n_accepted > 0) & rows.is_eos(rows.last())
        appends = verifying & ~ended & (verdict.next_token >= 0) & (rows.lengths < rows.limit)
        rows.write(verdict.next_token, appends)
        for runner in (self._large, self._small):
            if runner is not None:
                runner.rollback(torch.minimum(runner.lengths, rows.lengths - 1))
        ended |= appends & rows.is_eos(verdict.next_token) & ~verdict.skip_draft
        ended |= rows.lengths >= rows.limit
        ended |= self._meets_criteria(start)
        rows.is_open = was_open & ~ended
        self._skip_draft = verdict.skip_draft
        self._recorder.round(
            was_open=was_open,
            draft=draft,
            n_accepted=verdict.n_accepted,
            n_written=rows.lengths - start,
            next_tokens=verdict.next_token,
            large_confidence=large_confidence,
        )

    def _meets_criteria(self, start: Tensor) -> Tensor:
        """(B,) bool: rows that a stopping criterion ends; they are cut after the token that met it."""
        rows, criteria = self._rows, self._request.stopping_criteria
        met = torch.zeros_like(rows.is_open)
        if len(criteria) == 0:
            return met
        for row in rows.is_open.nonzero().squeeze(-1).tolist():
            for length in range(int(start[row]) + 1, int(rows.lengths[row]) + 1):
                if bool(criteria(rows.tokens[row : row + 1, :length], None).any()):
                    rows.lengths[row], met[row] = length, True
                    break
        return met

    def _extend(self, runner: Runner | None, name: str, taking_part: Tensor, before: Tensor, width: int) -> Scores:
        """Feed a runner what it has not seen. Scores of the (B, width) positions whose first is ``before`` (B,)
        positions ahead of the last token that stands."""
        if runner is None:
            raise AssertionError(f"the policy uses no {name} model, yet asks for it")
        rows = self._rows
        unseen = torch.where(taking_part, rows.lengths - runner.lengths, 0)
        tokens = rows.span(runner.lengths, int(unseen.max()))
        self._check_embeddable(tokens, unseen, runner, name)
        logits = runner.extend(tokens, unseen)
        columns = (unseen - 1 - before).unsqueeze(-1) + torch.arange(width, device=unseen.device)
        columns = columns.clamp(0, tokens.shape[1] - 1).unsqueeze(-1)
        raw = logits.gather(1, columns.expand(-1, -1, logits.shape[-1]))
        raw = _fit_vocabulary(raw.to(torch.promote_types(raw.dtype, torch.float32)), self._vocab_size)
        positions = torch.where(taking_part, before + 1, 0)
        self._check_numbers(raw, positions, name)
        first = rows.lengths - before
        processed = process(self._request.processors, raw, rows.tokens, first, positions)
        return Scores(raw=raw, processed=processed, sampler=self._request.sampler)

    @property
    def _vocab_size(self) -> int:
        """The large model's head decides which ids exist; without a large model, the small one's."""
        runner = self._small if self._large is None else self._large
        if runner is None:
            raise AssertionError("a decoder needs at least one model")
        return runner.vocab_size

    def _check_embeddable(self, tokens: Tensor, widths: Tensor, runner: Runner, name: str) -> None:
        if runner.vocab_size >= self._vocab_size:
            return
        fed = torch.arange(tokens.shape[1], device=tokens.device) < widths.unsqueeze(-1)
        strangers = tokens[fed & (tokens >= runner.vocab_size)]
        if len(strangers) > 0:
            raise ValueError(
                f"token id {int(strangers[0])} was written by the model of {self._vocab_size} tokens, but the {name} "
                f"model embeds only {runner.vocab_size}; use a pair with one tokenizer"
            )

    def _check_numbers(self, raw: Tensor, positions: Tensor, name: str) -> None:
        counted = torch.arange(raw.shape[1], device=raw.device) < positions.unsqueeze(-1)
        broken = ((raw.isnan() | (raw == torch.inf)).any(-1) & counted).any(-1)
        if bool(broken.any()):
            row = int(broken.nonzero()[0])
            step = int(self._rows.lengths[row]) - self._request.prompt.shape[1]
            raise ValueError(
                f"the {name} model's logits are NaN or infinite in row {row} after {step} written tokens; "
                "check its weights and dtype (float16 overflows in most T5 models: use bfloat16 or float32)"
            )

    def _sequences(self) -> Tensor:
        rows = self._rows
        width = int(rows.lengths.max())
        beyond = torch.arange(width, device=rows.tokens.device) >= rows.lengths.unsqueeze(-1)
        return rows.tokens[:, :width].masked_fill(beyond, self._request.pad_token_id)


def _fit_vocabulary(logits: Tensor, vocab_size: int) -> Tensor:
    """(..., V) to (..., vocab_size): ids that a narrower head lacks get probability zero, surplus ones are dropped."""
    missing = vocab_size - logits.shape[-1]
    if missing > 0:
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
    return logits[..., :vocab_size]
