"""One model at work on what has been written: it is shown what it has not seen, and its logits become scores.

Knows no policy and no round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bild.engine.runner import Runner
from bild.processors import process
from bild.rows import Request, Rows
from bild.tensors import columns_from, spread, unfolded, where
from bild.types import Scores


class Reader:
    """A runner that has been prefilled, and the rows that it reads. ``name`` ("large", "small") is for messages."""

    def __init__(self, runner: Runner, name: str, rows: Rows, request: Request, vocab_size: int) -> None:
        self.runner = runner
        self._name = name
        self._rows = rows
        self._request = request
        self.vocab_size = vocab_size

    def read(self, taking_part: Sequence[bool], before: Sequence[int], width: int) -> Scores:
        """Feed the rows that take part what the model has not seen of them. Scores of the (B, width) positions whose
        first is ``before`` positions ahead of each row's last token."""
        tokens, unseen = self.unseen(taking_part)
        logits = self.runner.extend(tokens, unseen)
        first = [count - 1 - ahead for count, ahead in zip(unseen, before, strict=True)]
        logits, ids = columns_from(logits, [first[row] for row in where(taking_part)], first, width), self.runner.listed
        if ids is not None and len(self._request.processors) > 0:
            logits, ids = spread(logits, ids, self.runner.vocab_size), None  # processors speak of ids, not of columns
        raw = unfolded(logits, ids, self.vocab_size)
        processed = self._process(raw, taking_part, before)
        return Scores(raw=raw, processed=processed, sampler=self._request.sampler, ids=ids)

    def unseen(self, taking_part: Sequence[bool]) -> tuple[Tensor, list[int]]:
        """The (B, W) tokens on the host that the rows that take part have and the model has not seen, padded, and how
        many each.

        Raises ValueError on one that it has no embedding for.
        """
        cached = self.runner.lengths
        unseen = [
            len(row) - seen if takes_part else 0
            for row, seen, takes_part in zip(self._rows.tokens, cached, taking_part, strict=True)
        ]
        longest = max(unseen)
        tokens = []
        for row, seen, count in zip(self._rows.tokens, cached, unseen, strict=True):
            new = row[seen : seen + count]
            if self.runner.vocab_size < self.vocab_size and new and max(new) >= self.runner.vocab_size:
                raise ValueError(
                    f"token id {max(new)} was written by the model of {self.vocab_size} tokens, but the {self._name} "
                    f"model embeds only {self.runner.vocab_size}; use a pair with one tokenizer"
                )
            tokens.append(new + [0] * (longest - count))
        return torch.tensor(tokens), unseen

    def forget(self, lengths: Sequence[int]) -> None:
        """Roll back to what each row has cached of its first ``lengths`` tokens."""
        self.runner.rollback([min(*pair) for pair in zip(self.runner.lengths, lengths, strict=True)])

    def check_numbers(
        self, confidence: Sequence[Sequence[float]], positions: Sequence[int], view: Callable[[], Scores]
    ) -> None:
        """Raise ValueError where one of a row's first ``positions`` has no distribution: its largest probability is
        NaN if and only if a logit is NaN or infinite, or all of them are -inf."""
        for row, (sure, counted) in enumerate(zip(confidence, positions, strict=True)):
            if all(number == number for number in sure[:counted]):
                continue
            written = self._rows.lengths[row] - self._request.prompt.shape[1]
            place = f"in row {self._rows.names[row]} after {written} written tokens"
            raw = view().raw[row, :counted]
            if bool((raw.isnan() | (raw == torch.inf)).any()):
                raise ValueError(
                    f"the {self._name} model's logits are NaN or infinite {place}; "
                    "check its weights and dtype (float16 overflows in most T5 models: use bfloat16 or float32)"
                )
            raise ValueError(
                f"no token is left for the {self._name} model {place}: the logits processors forbid all of them"
            )

    def _process(self, raw: Tensor, taking_part: Sequence[bool], before: Sequence[int]) -> Tensor:
        """The (B, width, V) logits after the processors, each position shown the tokens that stand before it."""
        processors, rows = self._request.processors, self._rows
        if len(processors) == 0:
            return raw
        first = [length - ahead for length, ahead in zip(rows.lengths, before, strict=True)]
        positions = [ahead + 1 if takes_part else 0 for ahead, takes_part in zip(before, taking_part, strict=True)]
        return process(processors, raw, rows.tensor(), first, positions)
