"""What speculative decoding ought to gain, from acceptance and costs (Leviathan et al., ICML 2023, section 3).

Knows numbers alone. ``alpha`` is the chance that a drafted token is accepted, in [0, 1]; ``g`` the draft length; ``c``
the cost of a small step in large steps. The closed forms take acceptance to be the same, and independent, at every
position, texts to have no end, and a large step to cost the same whatever its width. ``walk`` takes the positions of
real texts, one by one, instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def tokens_per_large_step(alpha: float, g: int) -> float:
    """(1 - alpha^(g+1)) / (1 - alpha), equation 1."""
    return sum(alpha**drafted for drafted in range(g + 1))


def speedup(alpha: float, g: int, c: float) -> float:
    """(1 - alpha^(g+1)) / ((1 - alpha)(g c + 1)), theorem 3.8: wall time over that of the large model alone."""
    return tokens_per_large_step(alpha, g) / (g * c + 1)


def operations(alpha: float, g: int, c: float) -> float:
    """(1 - alpha)(g c + g + 1) / (1 - alpha^(g+1)), theorem 3.11: arithmetic over that of the large model alone.

    ``c`` here is the small model's arithmetic per token in that of the large one.
    """
    return (g * c + g + 1) / tokens_per_large_step(alpha, g)


def best_draft_length(alpha: float, c: float, longest: int) -> int:
    """The ``g`` in 1..longest of the greatest ``speedup``."""
    return max(range(1, longest + 1), key=lambda g: speedup(alpha, g, c))


@dataclass(frozen=True)
class StepCounts:
    """How many steps some texts take on average over what is random in acceptance."""

    small: float
    large: dict[int, float]
    """by width: the drafted tokens and one more"""

    @property
    def n_large(self) -> float:
        """Large steps of any width."""
        return sum(self.large.values())

    def milliseconds(self, small_ms: float, large_ms: dict[int, float]) -> float:
        """What they cost, given that of a small step, and of a large one by width."""
        return self.small * small_ms + sum(count * large_ms[width] for width, count in self.large.items())


def walk(kept: Sequence[float], g: int, limit: int) -> StepCounts:
    """The steps that lossless decoding takes to write one text, exactly where acceptance is certain (greedy).

    Args:
        kept: the chance that each token of the text is accepted when it is drafted there.
        g: draft length.
        limit: tokens of a text at most; a text that is shorter has ended in EOS.

    The number of large steps is exact. A draft that goes wrong is taken to be ``g`` long: it might have been cut short
    by an EOS of its own.
    """
    length, small, large = len(kept), 0.0, {}
    arriving = [1.0] + [0.0] * length  # the chance that a round begins at a position
    for start in range(length):
        here = arriving[start]
        if here == 0:
            continue
        draft = min(g, limit - start)
        reach = min(draft, length - start)  # tokens of the text that the draft can hold
        standing = here
        for place in range(start, start + reach):
            arriving[place + 1] += standing * (1 - kept[place])
            standing *= kept[place]
        end = start + reach
        if end < length:
            arriving[end + 1] += standing  # and the large model's own token
        for drafted, chance in ((reach, standing), (draft, here - standing)):
            small += chance * drafted
            large[drafted + 1] = large.get(drafted + 1, 0.0) + chance
    return StepCounts(small, large)


def add(steps: Sequence[StepCounts]) -> StepCounts:
    """The steps of several texts together."""
    widths = sorted({width for one in steps for width in one.large})
    return StepCounts(
        sum(one.small for one in steps), {width: sum(one.large.get(width, 0.0) for one in steps) for width in widths}
    )
