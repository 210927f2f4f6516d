"""How long a row's next draft may be, from how much of its last one stood. Knows numbers alone.

transformers' assisted generation has the same idea with other steps (its "heuristic" schedule: two more, one less).
"""

from __future__ import annotations


def adapted(length: int, n_drafted: int, n_accepted: int, longest: int) -> int:
    """The draft length, 1 to ``longest``, after a round in which it was ``length``.

    Two more where all of ``n_drafted`` stood and the length is what ended the draft, for there may have been more to
    gain; half-way down to what stood, and one more, where some of it did not. A draft that something else ended, and
    that stood, says nothing about the length.
    """
    if n_accepted < n_drafted:
        return max(1, (length + n_accepted + 1) // 2)
    return min(longest, length + 2) if n_drafted == length else length
