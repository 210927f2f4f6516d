"""Work over tensors whose addresses stay, recorded once and replayed: CUDA graphs. The only file that knows CUDA.

A replay repeats what was launched while the work was recorded, on the same memory: numbers that the work took from the
host are in it for good, so whatever differs from call to call must stand in a tensor that the work reads.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from typing import Any, Protocol
from weakref import WeakSet

import torch

Work = Callable[[], None]
"""Reads and writes tensors that live longer than it, and gives nothing back; doing it twice changes nothing."""

MOST_KEPT = 64  # recordings over one set of buffers; a recording holds no memory of its own but its launches


class Capturer(Protocol):
    """What can record work on one device."""

    def capture(self, work: Work) -> Work:
        """Do the work, and give back what does the same again. Raises RuntimeError where it cannot be recorded."""


class CudaCapturer:
    """Every graph of a device takes its scratch memory from one pool: replays follow each other, and what outlives one
    stands in tensors that were there before it was recorded. All of them are captured on one stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None
        self._in_pool: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def capture(self, work: Work) -> Work:
        with torch.cuda.device(self._device):
            graph = torch.cuda.CUDAGraph()
            here = torch.cuda.current_stream()
            self._aside.wait_stream(here)
            try:
                with torch.cuda.stream(self._aside):  # which torch does not leave again where a capture fails
                    work()  # once outside of a capture: libraries set themselves up at their first call
                    self._into(graph, work)
            finally:
                here.wait_stream(self._aside)
        return graph.replay

    def _into(self, graph: torch.cuda.CUDAGraph, work: Work) -> None:
        """What other threads ask of the device (loaders that pin memory) is no part of it."""
        if not self._in_pool:  # torch takes up no pool again whose graphs have all gone
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            # Some versions leave the allocator in a capture that has failed; it would give no memory back any more.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            self._in_pool = WeakSet()  # and such a pool is not used again
            raise
        self._in_pool.add(graph)


@cache
def capturer_of(device: torch.device) -> Capturer:
    """The capturer of a device.

    Raises:
        ValueError: nothing can be recorded there.
    """
    if device.type != "cuda":
        raise ValueError(f"engine='graphs' captures CUDA graphs, the model is on {device}; use engine='static'")
    return CudaCapturer(device)


class Careful:
    """A capturer that falls back: work that cannot be recorded, since it asks the host for something, is done step by
    step, and so is all work once memory was wanting. One warning for each."""

    def __init__(self, capturer: Capturer) -> None:
        self._capturer: Capturer | None = capturer

    def capture(self, work: Work) -> Work:
        if self._capturer is not None:
            try:
                return self._capturer.capture(work)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError):
                    self._capturer = None
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                warnings.warn(f"no graph could be captured, so steps run one by one: {reason}", stacklevel=2)
        work()
        return work


class Captures:
    """What has been recorded over one set of buffers, by name."""

    def __init__(self, capturer: Capturer) -> None:
        self._capturer = capturer
        self._kept: OrderedDict[Hashable, tuple[Work, Work]] = OrderedDict()

    # In one mode, whatever the caller's: what is made in inference mode cannot be written to outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def run(self, name: Hashable, work: Work) -> None:
        """Do the work of this name: this one, where none has been recorded yet."""
        if name in self._kept:
            self._kept.move_to_end(name)
            self._kept[name][1]()
            return
        # The work stays with its recording, and with it whatever it reads.
        self._kept[name] = work, self._capturer.capture(work)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def has(self, name: Hashable) -> bool:
        """Whether work of this name has been recorded."""
        return name in self._kept

    def clear(self) -> None:
        """Let go of all of it."""
        self._kept.clear()
