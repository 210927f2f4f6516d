"""Models made by hand: a runner over a function of the whole cached prefix, so that a stale cache shows.

Knows nothing about transformers' models; drives the round loop directly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from bild.decode import Decoder
from bild.policies.base import Policy
from bild.rows import Request
from bild.sampling import RowStreams, Sampler
from bild.types import RowStats, TokenTrace

Prefix = tuple[int, ...]
Model = Callable[[Prefix], Sequence[float]]
"""Logits of the token after a prefix, the start token included."""

START = 0
EOS = 1


class FakeRunner:
    """``bild.engine.runner.Runner`` over ``models``, one per row. Keeps the tokens that each row has cached, and
    refuses every use that the protocol forbids."""

    listed: Tensor | None = None
    parted: frozenset[int] = frozenset()

    def __init__(self, models: Sequence[Model], vocab_size: int) -> None:
        self._models = list(models)
        self.vocab_size = vocab_size
        self.prefill()

    def prefill(self, **encoder_inputs: Any) -> None:
        self.cached: list[list[int]] = [[] for _ in self._models]
        self.passes = 0

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        for row in rows:
            self.cached[row] = []

    @property
    def lengths(self) -> list[int]:
        return [len(tokens) for tokens in self.cached]

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        assert tokens.shape[0] == len(self.cached) == len(widths)
        assert min(widths) >= 0
        assert 1 <= max(widths) <= tokens.shape[1]
        self.passes += 1
        # What the protocol calls meaningless is poison here.
        logits = torch.full((*tokens.shape, self.vocab_size), torch.nan, dtype=torch.float64)
        for row, width in enumerate(widths):
            for column, token in enumerate(tokens[row, :width].tolist()):
                # The start token stands at position 0 and nowhere else: a row fed from a wrong position trips here.
                assert (token == START) == (len(self.cached[row]) == 0), f"row {row}: {token} after {self.cached[row]}"
                self.cached[row].append(token)
                logits[row, column] = torch.tensor(self._models[row](tuple(self.cached[row])), dtype=torch.float64)
        return logits

    def rollback(self, lengths: Sequence[int]) -> None:
        for row, length in enumerate(lengths):
            assert 0 <= length <= len(self.cached[row])
            del self.cached[row][length:]


def scripted(script: dict[Prefix, dict[int, float]], vocab_size: int) -> Model:
    """Probabilities written down per prefix, the start token left out; what is not named shares the rest. A prefix that
    the script does not hold is a mistake of the loop, not of the model."""

    def logits(prefix: Prefix) -> list[float]:
        assert prefix[1:] in script, f"the script holds no prefix {prefix[1:]}"
        named = script[prefix[1:]]
        rest = (1 - sum(named.values())) / (vocab_size - len(named))
        return torch.tensor([named.get(token, rest) for token in range(vocab_size)], dtype=torch.float64).log().tolist()

    return logits


def counting(vocab_size: int, *, sure: float, offset: int = 1) -> Model:
    """Writes the last token + ``offset``, with probability ``sure``; the start counts as 1, so that 2 comes first."""

    def logits(prefix: Prefix) -> list[float]:
        last = prefix[-1] if len(prefix) > 1 else 1
        probs = torch.full((vocab_size,), (1 - sure) / (vocab_size - 1), dtype=torch.float64)
        probs[(last + offset) % vocab_size] = sure
        return probs.log().tolist()

    return logits


def hashed(seed: int, vocab_size: int, *, sharpness: float = 2.0, twin: int | None = None) -> Model:
    """Random logits, another draw for every prefix. With ``twin``, near those of that seed, so that the two often
    agree. The start token is never written."""
    memory: dict[Prefix, list[float]] = {}

    def draw(seed: int, prefix: Prefix) -> list[float]:
        source = random.Random(f"{seed} {prefix}")
        scale = sharpness * source.choice([0.3, 1.0, 2.0])
        return [source.gauss(0, scale) for _ in range(vocab_size)]

    def logits(prefix: Prefix) -> list[float]:
        if prefix not in memory:
            own = draw(seed, prefix)
            if twin is not None:
                own = [0.4 * mine + other for mine, other in zip(own, draw(twin, prefix), strict=True)]
            own[START] = -1e9
            memory[prefix] = own
        return memory[prefix]

    return logits


def run(
    large: Sequence[Model] | Model | None,
    small: Sequence[Model] | Model | None,
    policy: Policy,
    *,
    vocab_size: int,
    max_new_tokens: int,
    eos: tuple[int, ...] = (EOS,),
    sampler: Sampler | None = None,
    generators: Sequence[torch.Generator] | None = None,
    processors: LogitsProcessorList | None = None,
    criteria: StoppingCriteriaList | None = None,
    on_settled: Callable[[Tensor], None] | None = None,
) -> tuple[list[list[int]], list[RowStats], list[list[TokenTrace]], dict[str, FakeRunner]]:
    """Decode with fake models, one per row (or one for a single row). Returns each row's written tokens, its counts and
    its trace, and the runners as they were left."""
    runners = {
        name: FakeRunner([models] if callable(models) else models, vocab_size)
        for name, models in (("large", large), ("small", small))
        if models is not None
    }
    batch_size = len(next(iter(runners.values())).cached)
    request = Request(
        prompt=torch.full((batch_size, 1), START),
        max_new_tokens=max_new_tokens,
        eos_token_ids=eos,
        pad_token_id=START,
        sampler=Sampler() if sampler is None else sampler,
        streams=None if generators is None else RowStreams(list(generators)),
        processors=LogitsProcessorList() if processors is None else processors,
        stopping_criteria=StoppingCriteriaList() if criteria is None else criteria,
        on_settled=on_settled,
    )
    out = Decoder(runners.get("large"), runners.get("small"), policy, request).run()
    written = [row[1 : 1 + count.tokens] for row, count in zip(out.sequences.tolist(), out.stats, strict=True)]
    return written, out.stats, out.trace, runners


def told(trace: Sequence[TokenTrace]) -> list[tuple[int, int, str, str]]:
    """A trace without its confidences: round, token, model, reason."""
    return [(entry.round, entry.token_id, entry.model, entry.reason) for entry in trace]


def reasons(trace: Sequence[TokenTrace]) -> list[str]:
    return [entry.reason for entry in trace]
