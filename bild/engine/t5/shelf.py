"""What is kept with a decoder's weights from call to call: buffers that wait for the next one, and what records over
them. It goes when the weights go, so that nothing recorded outlives what it was recorded with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from bild.engine.capture import Careful, Recorder, recorder_of

if TYPE_CHECKING:
    from bild.engine.t5.fixed import FixedCaches, Size

MOST_IDLE = 4  # sets of buffers that wait


class Shelf:
    """Buffers of any sizes, each in the hands of at most one runner."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._idle: list[FixedCaches] = []

    def recorder(self, device: torch.device) -> Recorder:
        """The one for all of these buffers. Raises ValueError where nothing can be recorded."""
        if self._recorder is None:
            self._recorder = Careful(recorder_of(device))
        return self._recorder

    def take(self, size: Size, make: Callable[[], FixedCaches]) -> FixedCaches:
        """Buffers of exactly this size that nobody uses, new ones if there are none."""
        fitting = next((one for one in reversed(self._idle) if one.size == size), None)
        if fitting is None:
            return make()
        self._idle.remove(fitting)
        return fitting

    def put(self, caches: FixedCaches) -> None:
        """They are free again. Those that have waited longest are given up."""
        self._idle.append(caches)
        self._give_up(len(self._idle) - MOST_IDLE)

    def clear(self) -> None:
        """Free what waits: the weights are not to be used again."""
        self._give_up(len(self._idle))

    def _give_up(self, count: int) -> None:
        """Let go of those that have waited longest, at once: on a GPU nobody collects what only refers to itself."""
        for one in self._idle[: max(0, count)]:
            one.forget_recordings()
        del self._idle[: max(0, count)]
