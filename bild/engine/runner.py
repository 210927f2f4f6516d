"""The whole of what the round loop knows about a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

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

        ``tokens`` (B, W) int64, ``widths`` B numbers in 0..W; a row of width 0 is left alone. Returns logits
        (B, W, V), meaningless from each row's width on; ``lengths`` grow by ``widths``. A row of -inf alone means that
        a draft source has nothing to propose there.
        """

    def rollback(self, lengths: Sequence[int]) -> None:
        """Forget what each row holds beyond its length in ``lengths``, none longer than what is cached."""
