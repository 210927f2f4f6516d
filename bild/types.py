"""What the parts of the decoder hand to each other: frozen dataclasses, a shape and a unit beside every field.

B rows, K drafted tokens at most in this round, V the vocabulary, T the longest sequence. Knows no model and no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bild.sampling import Sampler, inverse_cdf
from bild.tensors import at, spread


@dataclass(frozen=True)
class Scores:
    """What one model says of some positions. Every view is computed when it is first asked for."""

    raw: Tensor
    """(..., V) the model's own logits, at least float32."""
    processed: Tensor
    """(..., V) the logits after the processors."""
    sampler: Sampler
    ids: Tensor | None = None
    """(V,) the token id of each column, where they are not simply 0 .. V-1"""

    @cached_property
    def plain(self) -> Tensor:
        """(..., V) softmax of the processed logits: what thresholds are compared with."""
        return torch.softmax(self.processed, dim=-1)

    @cached_property
    def tempered(self) -> Tensor:
        """(..., V) the distribution that tokens are drawn from: temperature, top-k, top-p; one-hot when greedy."""
        return self.plain if self.sampler.plain else self.sampler.distribution(self.processed)

    @cached_property
    def confidence(self) -> Tensor:
        """(...) the largest plain probability."""
        return self.plain.amax(-1)

    @cached_property
    def choice(self) -> Tensor:
        """(...) int64, the most probable token."""
        columns = self.processed.argmax(-1)
        return columns if self.ids is None else self.ids[columns]

    def plain_of(self, tokens: Tensor) -> Tensor:
        """(...) the plain probability of the token ids (...), all of them among ``ids``."""
        return self._of(tokens, self.plain)

    def log_plain_of(self, tokens: Tensor) -> Tensor:
        """(..., N) the natural logarithm of the same, at the first N positions, of tokens (..., N); finite too where
        the probability is too small for its number."""
        log_total = self.processed.amax(-1) - self.confidence.log()
        return self._of(tokens, self.processed) - log_total[..., : tokens.shape[-1]]

    @property
    def unprocessed(self) -> Scores:
        """The same positions without processors."""
        return self if self.processed is self.raw else replace(self, processed=self.raw)

    def pick(self, uniforms: Tensor | None) -> Tensor:
        """(...) the token that the model writes at each position; ``uniforms`` (...) in [0, 1), unused when greedy."""
        if self.sampler.greedy:
            return self.choice
        if uniforms is None:
            raise ValueError("sampling needs one uniform number per position")
        columns = inverse_cdf(self.tempered, uniforms)
        return columns if self.ids is None else self.ids[columns]

    def at(self, columns: Tensor) -> Scores:
        """The one position of each row, of (B, W) positions, that the (B,) columns name."""
        return Scores(at(self.raw, columns), at(self.processed, columns), self.sampler, self.ids)

    def _of(self, tokens: Tensor, values: Tensor) -> Tensor:
        """(...) of (..., V) values those of the token ids (...)."""
        columns = tokens if self.ids is None else torch.searchsorted(self.ids, tokens)
        return values.gather(-1, columns.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Steps:
    """What the small model said while it drafted, over the large model's vocabulary. W = K + 1 positions; the last of a
    row's ``n_drafted + 1`` means nothing unless its stop rule ended the draft, or its cap did and the small model
    ``looked_ahead``. The very numbers that its tokens were drawn from; put together when first asked for."""

    each: Sequence[Scores]
    """(B, N) positions of the steps that were taken at once, one stretch after the other"""
    width: int
    """W; there may have been fewer steps, or more"""
    vocab_size: int

    @cached_property
    def plain(self) -> Tensor:
        """(B, W, V)"""
        return self._over_vocabulary([step.plain for step in self.each])

    @cached_property
    def tempered(self) -> Tensor:
        """(B, W, V)"""
        return self._over_vocabulary([step.tempered for step in self.each])

    @cached_property
    def confidence(self) -> Tensor:
        """(B, W) the largest plain probability."""
        return self._joined([step.confidence for step in self.each])

    @cached_property
    def choice(self) -> Tensor:
        """(B, W) int64, the most probable token."""
        return self._joined([step.choice for step in self.each])

    def _over_vocabulary(self, probs: Sequence[Tensor]) -> Tensor:
        return self._joined(
            [
                one if step.ids is None else spread(one, step.ids, self.vocab_size, otherwise=0.0)
                for one, step in zip(probs, self.each, strict=True)
            ]
        )

    def _joined(self, values: list[Tensor]) -> Tensor:
        """(B, N, ...) of each stretch side by side, (B, W, ...), zeros where there was no step."""
        rows, _, *rest = values[0].shape
        missing = self.width - sum(value.shape[1] for value in values)
        if missing > 0:
            values = [*values, values[0].new_zeros(rows, missing, *rest)]
        joined = torch.cat(values, dim=1) if len(values) > 1 else values[0]
        return joined if missing >= 0 else joined[:, : self.width]


class StopRule(Protocol):
    """When a draft ends before its cap. A frozen dataclass of fixed values decides alike wherever it is equal, now and
    later: what is recorded of one draft turn then serves every policy with this rule."""

    def __call__(self, small: Scores, n_drafted: Tensor) -> Tensor:
        """What the small model says of (B, 1) positions, and (B, 1) tokens drafted before them, to (B, 1) bool: discard
        this one and stop.

        Never sees the drawn token, so that any stop rule composes with exact verification. Tensor operations alone,
        nothing that looks at a number, or draft turns cannot be recorded.
        """


class ExitRule(Protocol):
    """When a token may leave a model before its last decoder layer. N tokens, D the model's width."""

    @property
    def first_exit(self) -> int:
        """Layers that every token takes, at least 1."""

    @property
    def reads_logits(self) -> bool:
        """It looks at what the model would write from each layer."""

    def leaves(self, hidden: Tensor, below: Tensor, logits: Tensor | None, share: Tensor) -> Tensor:
        """(N, D) behind a layer and before it, the (N, V) logits from there if it reads them, and (N,) how much of its
        row's length limit stands before each token, in [0, 1). Returns (N,) bool."""


@dataclass(frozen=True)
class Draft:
    """The small model's proposal of one round."""

    tokens: Tensor
    """(B, K) int64; columns from ``n_drafted`` on are meaningless."""
    n_drafted: Tensor
    """(B,) int64 tokens drafted, the discarded trigger not counted."""
    stopped: Tensor
    """(B,) bool, the stop rule ended the draft (and not its cap, an EOS or the length limit)."""
    looked_ahead: Tensor
    """(B,) bool, its cap ended the draft, and the policy ``looks_ahead``: ``small`` holds what comes after it."""
    token_probs: Tensor
    """(B, K) the small model's plain probability of each."""
    small: Steps
    """What the small model said at (B, K+1) positions; no step is kept unless the policy ``keeps_scores``."""

    def narrowed(self, width: int) -> Draft:
        """Its first ``width`` <= K columns, where longer drafts are no longer asked about."""
        return Draft(
            tokens=self.tokens[:, :width],
            n_drafted=self.n_drafted.clamp(max=width),
            stopped=self.stopped,
            looked_ahead=self.looked_ahead,
            token_probs=self.token_probs[:, :width],
            small=replace(self.small, width=width + 1),
        )


@dataclass(frozen=True)
class Review:
    """What a policy decides about drafts before the large model has seen them."""

    settled: Tensor
    """(B,) bool, the large model is not asked about this draft; the others are verified."""
    n_accepted: Tensor
    """(B,) int64 in 0..n_drafted, the drafted tokens of a settled row that stand."""
    skip_draft: Tensor
    """(B,) bool, the large model writes the next token of a settled row, if that goes on, without a draft."""

    @classmethod
    def standing(cls, draft: Draft, rows: Tensor) -> Review:
        """The drafts of these (B,) bool rows stand as they are."""
        return cls(settled=rows, n_accepted=draft.n_drafted, skip_draft=torch.zeros_like(rows))


@dataclass(frozen=True)
class Verdict:
    """What a policy makes of a draft once the large model has seen it."""

    n_accepted: Tensor
    """(B,) int64 in 0..n_drafted, the drafted tokens that stand."""
    next_token: Tensor
    """(B,) int64 what the large model writes after them; -1 = nothing."""
    skip_draft: Tensor | None = None
    """(B,) bool, the large model writes the token after that too, without a draft; None = in no row."""
    ignores_eos: Tensor | None = None
    """(B,) bool, an EOS as the next token does not end the row; None = in no row."""


@dataclass(frozen=True)
class RowStats:
    """Counts of one row, the same in any batch."""

    rounds: int
    """turns of the loop in which the row was open"""
    drafted: int
    """tokens that the small model proposed, discarded triggers not counted"""
    accepted: int
    """drafted tokens that stand in the output"""
    rolled_back: int
    """drafted tokens that verification discarded"""
    fallbacks: int
    """draft turns that the stop rule ended"""
    small_steps: int
    """passes of the small model in which the row took part"""
    large_steps: int
    """passes of the large model in which the row took part"""
    tokens: int
    """tokens written, EOS counted; start, prompt and padding not"""


@dataclass(frozen=True)
class TokenTrace:
    """One token that was written, or drafted and discarded, in the order of writing."""

    token_id: int
    model: str
    """"small" or "large": who wrote it."""
    round: int
    """0-based round of its row."""
    confidence: float
    """the writer's largest plain probability at that position"""
    reason: str
    """"draft", "discarded", "fallback", "rollback", "bonus" or "large"; see ``bild.trace``."""
    layers: int | None = None
    """decoder layers that it took, where tokens may leave before the last (``bild.Calm``); None = all"""


@dataclass(frozen=True)
class DecodeOutput:
    """What ``bild.generate`` returns."""

    sequences: Tensor
    """(B, T) int64: decoder start token (or prompt), the written tokens, padding."""
    stats: list[RowStats]
    """B entries."""
    trace: list[list[TokenTrace]]
    """B lists; the entries that are not "discarded" are the written tokens of ``sequences``."""
    parted: list[tuple[str, ...]]
    """B entries: who ("large", "small") read the row apart from others, pass after pass, since it cannot hold rows at
    different lengths (``engine="hf"``). The same texts, but no batch; it depends on the rows beside it."""
    small_steps_run: list[int]
    """B entries: the steps that the small model has run for the row. More than its ``small_steps`` where whole draft
    turns run at once (``engine="graphs"``) and what comes after a draft's end is dropped; the same elsewhere."""
    drafted_at_once: bool
    """Whole draft turns ran at once (``engine="graphs"``). False where every step waited for the one before it, there
    too: under logits processors, and with a stop rule that may change."""
