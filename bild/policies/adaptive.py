"""How long a row's next draft may be, from how much of its last one stood. Knows numbers alone.

transformers' assisted generation has the same idea with other steps (its "heuristic" schedule: two more, one less).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from bild.policies.base import Policy, check_flag


@dataclass(frozen=True, kw_only=True)
class AdaptiveDrafts(Policy):
    """A policy whose drafts may follow, row by row, what stood of the last one. Raises ValueError unless ``adaptive``
    is true or false."""

    adaptive: bool = False
    """shorter drafts in a row whose drafts are rejected, up to ``max_draft`` again where they stand
    (``bild.policies.adaptive``)"""

    def __post_init__(self) -> None:
        check_flag("adaptive", self.adaptive)

    @property
    @abstractmethod
    def max_draft(self) -> int: ...

    @property
    def draft_lengths(self) -> range:
        return range(1, self.max_draft + 1) if self.adaptive else super().draft_lengths

    def next_draft_length(self, length: int, n_drafted: int, n_accepted: int) -> int:
        return adapted(length, n_drafted, n_accepted, self.max_draft) if self.adaptive else length


def adapted(length: int, n_drafted: int, n_accepted: int, longest: int) -> int:
    """The draft length, at most ``longest``, after a round in which it was ``length``; at least 1 unless that is 0.

    Two more where all of ``n_drafted`` stood and the length is what ended the draft, for there may have been more to
    gain; half-way from the length to one more than what stood, rounded down, where some of it did not. A draft that
    something else ended, and that stood, says nothing about the length.
    """
    if n_accepted < n_drafted:
        return max(1, (length + n_accepted + 1) // 2)
    return min(longest, length + 2) if n_drafted == length else length
