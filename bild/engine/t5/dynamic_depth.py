"""Dynamic depth: a T5 whose tokens may leave before the last layer. Above, a token's keys and values are those of the
state that it left with.

Knows no confidence: a rule says who leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.runner import T5Runner
from bild.engine.t5.state import Step, T5State
from bild.types import ExitRule


class DynamicDepthRunner(T5Runner):
    """``Runner`` over a T5 in which each token takes the layers that ``rule`` lets it take.

    A layer above reads of a token that has left no more than its key and value; the query comes with them, and is
    dropped.
    """

    def __init__(self, decoder: T5Decoder, state: T5State, rule: ExitRule) -> None:
        super().__init__(decoder, state, None)
        self._rule = rule
        self.depths: list[list[int]] = []
        """of each row, the layers that each of its cached tokens took"""

    def prefill(self, **encoder_inputs: Any) -> None:
        super().prefill(**encoder_inputs)
        self.depths = [[] for _ in self.lengths]

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        super().restart(rows, **encoder_inputs)
        for row in rows:
            self.depths[row] = []

    def rollback(self, lengths: Sequence[int]) -> None:
        super().rollback(lengths)
        self.depths = [depths[:length] for depths, length in zip(self.depths, lengths, strict=True)]

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        step = self._state.step(tokens, self.lengths, widths)
        logits, took = self._climb(step)
        for depths, width in zip(self.depths, widths, strict=True):
            depths += took[:width]
            del took[:width]
        self.lengths = [length + width for length, width in zip(self.lengths, widths, strict=True)]
        return step.block.spread(logits)

    def _climb(self, step: Step) -> tuple[Tensor, list[int]]:
        """Logits (N, V) of each token from where it left, and how many layers it took."""
        state, rule, depth = self._state, self._rule, len(self._decoder.layers)
        hidden = state.embed(step)
        logits: Tensor | None = None
        share = state.share_before(step)
        inside, climbing = list(range(len(hidden))), step
        took = [depth] * len(hidden)
        for layer in range(depth):
            queries = state.remember(hidden, step, layer)
            if not inside:
                continue
            index = None if climbing is step else torch.tensor(inside, device=hidden.device)
            below, query = (hidden, queries) if index is None else (hidden[index], queries[index])
            above = state.pass_through(below, query, climbing, layer)
            hidden = above if index is None else hidden.index_copy(0, index, above)
            said = None
            if rule.reads_logits and layer + 1 >= min(rule.first_exit, depth):
                said = self._head(self._decoder.ready_for_head(above))
                logits = said if logits is None or index is None else logits.index_copy(0, index, said)
            if not rule.first_exit <= layer + 1 < depth:
                continue
            leaves = rule.leaves(above, below, said, share if index is None else share[index]).tolist()
            if any(leaves):
                for place in (place for place, gone in zip(inside, leaves, strict=True) if gone):
                    took[place] = layer + 1
                inside = [place for place, gone in zip(inside, leaves, strict=True) if not gone]
                climbing = step.only(inside)
        if logits is None:
            logits = self._head(self._decoder.ready_for_head(hidden))
        return logits, took
