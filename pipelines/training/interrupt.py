"""SIGTERM and Ctrl-C during training: finish the step, save, leave.

Knows signals; knows nothing about the trainer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptError(Exception):
    """A signal arrived where the work can be dropped and done again."""


class Interrupt:
    """Remembers the first signal; a second one ends the process at once, as without this class."""

    def __init__(self) -> None:
        self.received: int | None = None
        """signal number, None as long as there was none"""
        self._droppable = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within this block signals are remembered; afterwards the previous handlers are back."""
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """Within this block a signal raises ``InterruptError`` at once."""
        if self.received is not None:
            raise InterruptError
        self._droppable = True
        try:
            yield
        finally:
            self._droppable = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number
        name = signal.Signals(number).name
        print(f"\n{name}: saving before leaving; once more to leave at once without saving", flush=True)
        if self._droppable:
            raise InterruptError
