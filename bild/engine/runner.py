"""The whole of what the round loop knows about a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from torch import Tensor


class Runner(Protocol):
    """One model at work on a batch of B rows that advance independently.

    The loop's rule: the last written token of a row is never cached before ``extend`` is called with it.
    """

    @property
    def lengths(self) -> list[int]:
        """Tokens cached per row."""

    @property
    def vocab_size(self) -> int:
        """Token ids that the model knows: 0 .. ``vocab_size`` - 1."""

    @property
    def listed(self) -> Tensor | None:
        """(V,) the token ids that its logits are of, ascending; None = all."""

    @property
    def parted(self) -> Collection[int]:
        """The rows that it has read apart from others that moved in the same call, since what it caches knows one
        length for several rows."""

    def prefill(self, **encoder_inputs: Any) -> None:
        """Start B new rows: forget whatever was cached, and run the encoder once or, without one, read the prompts (a
        runner may cache all but the last token of them now)."""

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        """Start these rows anew on other sources, one for each; the other rows go on as they are."""

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        """Feed each row its first ``widths`` tokens, at its own length.

        ``tokens`` (B, W) int64 on the host, ``widths`` B numbers in 0..W; a row of width 0 is left alone. Returns
        logits (B, W, V), meaningless from each row's width on; ``lengths`` grow by ``widths``. A row of -inf alone
        means that a draft source has nothing to propose there.
        """

    def rollback(self, lengths: Sequence[int]) -> None:
        """Forget what each row holds beyond its length in ``lengths``, none longer than what is cached."""


Choose = Callable[[Tensor, Tensor | None, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Logits (B, 1, V), the ids of their columns (None = all), (B,) tokens drafted so far and (B, 1) uniform numbers
(None = greedy) to (B, 1) each: whether the draft stops here, the token, the largest plain probability, the token's
plain probability. Tensor operations alone, nothing that looks at a number. Two that are equal do the same."""


@dataclass(frozen=True)
class Asked:
    """A stretch of a draft turn."""

    steps: int
    n_drafted: int
    """tokens that the rows have drafted in this turn before it"""
    uniforms: Tensor | None
    """(B, steps), None when greedy"""
    choose: Choose


class DraftRunner(Runner, Protocol):
    """A runner that takes several draft steps at once, and never asks the host in between."""

    def get_ready(self, widths: Iterable[int], drafts: Iterable[tuple[int, Asked]]) -> None:
        """Prepare, right behind ``prefill``, for ``extend`` with such widths and for ``draft`` after so many tokens, so
        that later calls do not have to. ``uniforms`` are there for their shape."""

    def draft(self, tokens: Tensor, widths: Sequence[int], asked: Asked) -> tuple[Tensor, list[Any]]:
        """Feed each row its first ``widths`` tokens, as ``extend`` does, and then what ``asked.choose`` chose, until
        ``asked.steps`` tokens are chosen, the last of which is not fed.

        Returns logits (B, steps, V), which hold until the next call, and on the host what was chosen: four lists
        (B, steps), in the order of ``Choose``. What a row of width 0 says is meaningless, and so is everything behind
        the end of a row's draft, which only the caller knows. The ``lengths`` of the other rows grow by ``widths`` and
        ``steps`` - 1; what they hold of a draft beyond its end is for ``rollback`` to forget.
        """


def drafts_at_once(runner: Runner) -> TypeGuard[DraftRunner]:
    """Whether it is a ``DraftRunner``. For a protocol ``isinstance`` would look at every member, at every step."""
    return hasattr(runner, "draft")


class DepthRunner(Runner, Protocol):
    """A runner whose tokens may leave the model before its last layer."""

    @property
    def depths(self) -> Sequence[Sequence[int]]:
        """Of each row, the layers that each of its cached tokens took."""


def leaves_early(runner: Runner) -> TypeGuard[DepthRunner]:
    """Whether it is a ``DepthRunner``."""
    return hasattr(runner, "depths")
