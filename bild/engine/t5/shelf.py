"""What is kept with a decoder's weights from call to call: buffers that wait for the next one, and what records over
them. It goes when the weights go, so that nothing recorded outlives what it was recorded with."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING

import torch

from bild.engine.capture import Capturer, Careful, capturer_of

if TYPE_CHECKING:
    from bild.engine.t5.fixed import FixedCaches, Size

MOST_IDLE = 8  # sets of buffers that wait


class Shelf:
    """Buffers of any sizes, each in the hands of at most one runner."""

    def __init__(self) -> None:
        self._capturer: Capturer | None = None
        self._idle: list[FixedCaches] = []
        self._most_idle = MOST_IDLE
        # Finalizers put buffers back, in any thread, and in the midst of what this one does here.
        self._lock = RLock()

    def capturer(self, device: torch.device) -> Capturer:
        """The one for all of these buffers. Raises ValueError where nothing can be recorded."""
        with self._lock:
            if self._capturer is None:
                self._capturer = Careful(capturer_of(device))
            return self._capturer

    def take(self, size: Size, make: Callable[[], FixedCaches]) -> FixedCaches:
        """Buffers of exactly this size that nobody uses, new ones if there are none."""
        with self._lock:
            waiting, self._idle = self._idle, []
            fitting = next((one for one in reversed(waiting) if one.size == size), None)
            self._idle[:0] = [one for one in waiting if one is not fitting]
        return make() if fitting is None else fitting

    def put(self, caches: FixedCaches) -> None:
        """They are free again. Those that have waited longest are given up; all of them, once it is closed."""
        with self._lock:
            self._idle.append(caches)
            self._give_up()

    def close(self) -> None:
        """Free what waits, and whatever comes back: the weights are not to be used again."""
        with self._lock:
            self._most_idle = 0
            self._give_up()

    def _give_up(self) -> None:
        """Let go of those too many, at once: on a GPU nobody collects what only refers to itself."""
        while len(self._idle) > self._most_idle:
            self._idle.pop(0).forget_captures()
