"""SIGTERM and Ctrl-C during training: finish the step, save, leave.

Knows signals and that several processes must agree; knows nothing about the trainer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptError(Exception):
    """A signal arrived where the work can be dropped and done again."""


class Interrupt:
    """Remembers the first signal; a second one ends the process at once, as without this class.

    Args:
        processes: how many train together.
        announce: whether this process tells what it does.
    """

    def __init__(self, processes: int = 1, announce: bool = True) -> None:
        self.received: int | None = None
        """signal number, None as long as there was none"""
        self._processes = processes
        self._announce = announce
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
    def droppable(self, device: torch.device) -> Iterator[None]:
        """Within this block, which waits for no other process, a signal ends it at once. At its end all of them agree.

        Raises:
            InterruptError: at the end of the block, in every process if one of them got a signal.
        """
        try:
            self._droppable = True
            if self.received is not None:
                raise InterruptError
            yield
            self._droppable = False  # here, where a signal that comes in just before is still caught
        except InterruptError:
            pass
        finally:
            self._droppable = False
        if self.agreed(device):
            raise InterruptError

    def agreed(self, device: torch.device) -> bool:
        """Whether any of the processes got a signal; all of them must ask at the same step."""
        if self._processes > 1:
            number = torch.tensor(0 if self.received is None else self.received, device=device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            self.received = int(number) if number > 0 else None
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number
        if self._announce:
            name = signal.Signals(number).name
            print(f"\n{name}: saving before leaving; once more to leave at once without saving", flush=True)
        if self._droppable:
            raise InterruptError
