"""The round loop: draft, verify, settle. It names no policy and no model.

What is written lives on the host; a step sends a runner the tokens that it has not seen and reads back what it decided,
once. The loop's own invariant: a row's last standing token is cached by neither model when a round begins. A model may
lag behind by more (a prompt, a draft, the two tokens after a full-length draft), and catches up in its next call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bild.engine.runner import Runner
from bild.policies.base import Policy
from bild.processors import process
from bild.rows import Request, Rows
from bild.tensors import columns_from, fit_vocabulary, spread, to_host, where
from bild.trace import Recorder
from bild.turn import Ruling, Turn
from bild.types import DecodeOutput, Draft, Scores


class Decoder:
    """One call of ``generate``: two runners that have been prefilled, a policy, a request."""

    def __init__(self, large: Runner | None, small: Runner | None, policy: Policy, request: Request) -> None:
        self._large = large
        self._small = small
        self._policy = policy
        self._request = request
        self._device = request.prompt.device
        self._rows = Rows(request)
        self._recorder = Recorder(len(request.prompt))
        self._names = list(range(len(request.prompt)))  # of the rows, for messages
        self._skip_draft = [policy.large_first] * len(request.prompt)
        self._draft_width = request.max_new_tokens if policy.max_draft is None else policy.max_draft

    def run(self) -> tuple[Tensor, Recorder]:
        """Decode every row to its end. Returns (B, T) padded sequences and what was recorded on the way."""
        while any(self._rows.is_open):
            self.round()
        return self._rows.tensor(), self._recorder

    def round(self) -> list[int]:
        """One turn of both models for every open row. Returns the rows that it has closed."""
        rows, width = self._rows, self._draft_width
        was_open = list(rows.is_open)
        uniforms = self._draw_uniforms()
        turn = self._draft(None if uniforms is None else uniforms[:, :width])
        draft = turn.as_draft(rows.tensor(turn.starts), self._vocab_size)
        ruling = Ruling.standing(turn.n_drafted)
        verifying = self._review(turn, draft, ruling)
        if any(verifying):
            self._verify(turn, draft, verifying, ruling, None if uniforms is None else uniforms[:, width:])
        self._settle(turn, ruling)
        if self._request.on_settled is not None:
            settled = rows.tokens[0][turn.starts[0] :]
            self._request.on_settled(torch.tensor(settled, dtype=torch.long, device=self._device))
        return [row for row in where(was_open) if not rows.is_open[row]]

    def take(self, row: int) -> DecodeOutput:
        """What a closed row holds, as a batch of one."""
        stats, trace = self._recorder.take(row)
        sequences = torch.tensor([self._rows.tokens[row]], device=self._device)
        return DecodeOutput(sequences, [stats], [trace], [self.parted(row)])

    def parted(self, row: int) -> tuple[str, ...]:
        """Who has read a row apart from others; see ``DecodeOutput``."""
        runners = {"large": self._large, "small": self._small}
        return tuple(name for name, runner in runners.items() if runner is not None and row in runner.parted)

    def reopen(self, row: int, name: int, generator: torch.Generator | None) -> None:
        """Begin anew in a row that has been taken, and whose runners have been restarted on a new source. ``name`` is
        the number that messages call it by."""
        self._names[row] = name
        self._rows.tokens[row] = self._request.prompt[row].tolist()
        self._rows.is_open[row] = True
        self._skip_draft[row] = self._policy.large_first
        if self._request.streams is not None and generator is not None:
            self._request.streams.replace(row, generator)

    def _draw_uniforms(self) -> Tensor | None:
        """(B, 2K+1) numbers of this round, as many as any course of it could use, so that streams never shift."""
        streams = self._request.streams
        return None if streams is None else streams.draw(2 * self._draft_width + 1, self._rows.is_open)

    def _draft(self, uniforms: Tensor | None) -> Turn:
        """Let the small model write until its stop rule, its cap, an EOS or the length limit ends the turn, or until it
        has nothing to say. Without a cap stopping criteria end it too; else they wait for what verification leaves."""
        rows, policy, turn = self._rows, self._policy, Turn.begin(self._rows.lengths)
        budgets = [min(rows.limit - start, self._draft_width) for start in turn.starts]
        drafting = [
            is_open and not skips and budget > 0
            for is_open, skips, budget in zip(rows.is_open, self._skip_draft, budgets, strict=True)
        ]
        step = 0
        while any(drafting):
            scores = self._small_step(turn, drafting)
            n_drafted = torch.tensor(turn.n_drafted, device=self._device)
            written = scores.pick(None if uniforms is None else uniforms[:, step : step + 1])
            token_probs = scores.confidence if uniforms is None else scores.plain_of(written)
            stops, tokens, sure, probs = to_host(
                policy.stop(scores.plain[:, 0], n_drafted), written[:, 0], scores.confidence, token_probs
            )
            if self._large is not None:  # which goes on
                for row in _silent(scores, sure, drafting):
                    drafting[row] = False
            self._check_numbers(scores, sure, [int(drafts) for drafts in drafting], "small")
            for row in where(drafting):
                if stops[row]:
                    turn.stopped[row], drafting[row] = True, False
                    continue
                rows.tokens[row].append(tokens[row])
                turn.confidence[row] += sure[row]
                turn.token_probs[row] += probs[row]
                turn.met[row] = policy.max_draft is None and self._meets_criteria(row, len(rows.tokens[row]) - 1)
                ends = turn.met[row] or rows.is_eos(tokens[row])
                drafting[row] = not ends and len(turn.confidence[row]) < budgets[row]
            step += 1
        if policy.looks_ahead:
            self._look_ahead(turn)
        return turn

    def _small_step(self, turn: Turn, taking_part: Sequence[bool]) -> Scores:
        """The small model's view of the next position of the rows that take part."""
        scores = self._extend(self._small, "small", taking_part, [0] * len(taking_part), 1)
        self._recorder.step("small", taking_part)
        if self._policy.keeps_scores:
            turn.kept.append(scores)
        return scores

    def _look_ahead(self, turn: Turn) -> None:
        """One more position for the rows whose draft its cap has ended."""
        rows, width = self._rows, self._draft_width
        looking = [
            n_drafted == width > 0 and length < rows.limit and not rows.is_eos(tokens[-1])
            for n_drafted, length, tokens in zip(turn.n_drafted, rows.lengths, rows.tokens, strict=True)
        ]
        if any(looking):
            scores = self._small_step(turn, looking)
            self._check_numbers(scores, scores.confidence.tolist(), [int(looks) for looks in looking], "small")

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
            flags = torch.tensor([at_eos, at_limit], device=self._device)
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
        scores = self._extend(self._large, "large", verifying, n_drafted, width)
        verdict = self._policy.verify(draft, scores, None if uniforms is None else uniforms[:, :width])
        none = torch.zeros_like(draft.stopped)
        n_accepted, next_token, skip_draft, ignores_eos, sure = to_host(
            verdict.n_accepted,
            verdict.next_token,
            none if verdict.skip_draft is None else verdict.skip_draft,
            none if verdict.ignores_eos is None else verdict.ignores_eos,
            scores.confidence,
        )
        self._recorder.step("large", verifying)
        positions = [drafted + 1 if verified else 0 for drafted, verified in zip(n_drafted, verifying, strict=True)]
        self._check_numbers(scores, sure, positions, "large")
        for row in where(verifying):
            ruling.n_accepted[row] = n_accepted[row]
            ruling.next_token[row] = next_token[row]
            ruling.skip_draft[row] = skip_draft[row]
            ruling.ignores_eos[row] = ignores_eos[row]
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
            ended = self._meets_criteria(row, unseen) or ended or len(tokens) >= rows.limit
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
        self._skip_draft = ruling.skip_draft
        for runner in (self._large, self._small):
            if runner is not None:
                runner.rollback(
                    [min(*pair) for pair in zip(runner.lengths, (n - 1 for n in rows.lengths), strict=True)]
                )

    def _meets_criteria(self, row: int, start: int) -> bool:
        """Whether a stopping criterion ends the row; it is cut after the token that met it."""
        criteria, tokens = self._request.stopping_criteria, self._rows.tokens[row]
        if len(criteria) == 0:
            return False
        for length in range(start + 1, len(tokens) + 1):
            if bool(criteria(torch.tensor([tokens[:length]], device=self._device), None).any()):
                del tokens[length:]
                return True
        return False

    def _extend(
        self, runner: Runner | None, name: str, taking_part: Sequence[bool], before: Sequence[int], width: int
    ) -> Scores:
        """Feed a runner what it has not seen. Scores of the (B, width) positions whose first is ``before`` positions
        ahead of each row's last token."""
        if runner is None:
            raise AssertionError(f"the policy uses no {name} model, yet asks for it")
        rows, cached = self._rows, runner.lengths
        unseen = [
            length - seen if takes_part else 0
            for length, seen, takes_part in zip(rows.lengths, cached, taking_part, strict=True)
        ]
        tokens = self._unseen_tokens(runner, name, cached, unseen)
        logits = runner.extend(torch.tensor(tokens, device=self._device), unseen)
        first = [count - 1 - ahead for count, ahead in zip(unseen, before, strict=True)]
        raw = columns_from(logits, [first[row] for row in where(taking_part)], first, width)
        raw, ids = raw.to(torch.promote_types(raw.dtype, torch.float32)), runner.listed
        if ids is not None and len(self._request.processors) > 0:
            raw, ids = spread(raw, ids, runner.vocab_size), None  # processors speak of ids, not of columns
        if ids is None:
            raw = fit_vocabulary(raw, self._vocab_size)
        processed = self._process(raw, taking_part, before)
        return Scores(raw=raw, processed=processed, sampler=self._request.sampler, ids=ids)

    def _unseen_tokens(
        self, runner: Runner, name: str, cached: Sequence[int], unseen: Sequence[int]
    ) -> list[list[int]]:
        """Each row's next ``unseen`` tokens, padded to the longest. Raises ValueError on one that has no embedding."""
        longest = max(unseen)
        tokens = []
        for row, seen, count in zip(self._rows.tokens, cached, unseen, strict=True):
            new = row[seen : seen + count]
            if runner.vocab_size < self._vocab_size and new and max(new) >= runner.vocab_size:
                raise ValueError(
                    f"token id {max(new)} was written by the model of {self._vocab_size} tokens, but the {name} "
                    f"model embeds only {runner.vocab_size}; use a pair with one tokenizer"
                )
            tokens.append(new + [0] * (longest - count))
        return tokens

    def _process(self, raw: Tensor, taking_part: Sequence[bool], before: Sequence[int]) -> Tensor:
        """The (B, width, V) logits after the processors, each position shown the tokens that stand before it."""
        processors, rows = self._request.processors, self._rows
        if len(processors) == 0:
            return raw
        first = [length - ahead for length, ahead in zip(rows.lengths, before, strict=True)]
        positions = [ahead + 1 if takes_part else 0 for ahead, takes_part in zip(before, taking_part, strict=True)]
        return process(
            processors, raw, rows.tensor(), torch.tensor(first).to(raw.device), torch.tensor(positions).to(raw.device)
        )

    @property
    def _vocab_size(self) -> int:
        """The large model's head decides which ids exist; without a large model, the small one's."""
        runner = self._small if self._large is None else self._large
        if runner is None:
            raise AssertionError("a decoder needs at least one model")
        return runner.vocab_size

    def _check_numbers(
        self, scores: Scores, confidence: Sequence[Sequence[float]], positions: Sequence[int], name: str
    ) -> None:
        """Raise ValueError where one of a row's first ``positions`` has no distribution: its largest probability is
        NaN if and only if a logit is NaN or infinite, or all of them are -inf."""
        for row, (sure, counted) in enumerate(zip(confidence, positions, strict=True)):
            if all(number == number for number in sure[:counted]):
                continue
            written = self._rows.lengths[row] - self._request.prompt.shape[1]
            place = f"in row {self._names[row]} after {written} written tokens"
            raw = scores.raw[row, :counted]
            if bool((raw.isnan() | (raw == torch.inf)).any()):
                raise ValueError(
                    f"the {name} model's logits are NaN or infinite {place}; "
                    "check its weights and dtype (float16 overflows in most T5 models: use bfloat16 or float32)"
                )
            raise ValueError(f"no token is left for the {name} model {place}: the logits processors forbid all of them")


def _silent(scores: Scores, confidence: Sequence[Sequence[float]], drafting: Sequence[bool]) -> list[int]:
    """The rows without a draft to go on with: a source proposes nothing, or nothing that the processors allow."""
    unclear = [row for row in where(drafting) if confidence[row][0] != confidence[row][0]]
    return [row for row in unclear if bool((scores.processed[row] == -torch.inf).all())]
