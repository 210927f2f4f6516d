"""Clocks: a steady one, one for encoders, one for everything that a runner does. Knows models only by their hooks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from transformers import PreTrainedModel

RUNNER_WORK = ("prefill", "extend", "draft", "get_ready")
"""the methods of a runner that run its model; some runners lack some"""


def now(device: torch.device) -> float:
    """Seconds on a steady clock, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class EncoderClock:
    """Adds up the time that models spend in their own encoders, by hooks on ``get_encoder()``; on CUDA by events, so
    that listening stops nothing."""

    def __init__(self, models: Sequence[PreTrainedModel], device: torch.device) -> None:
        self._models = models
        self._device = device
        self._marks: list[Any] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Begin anew, and listen inside the block."""
        self._marks = []
        encoders = [model.get_encoder() for model in self._models]
        hooks = [encoder.register_forward_pre_hook(self._mark) for encoder in encoders]
        hooks += [encoder.register_forward_hook(self._mark) for encoder in encoders]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def seconds(self) -> float:
        """Spent in encoders; to be asked once the device has done its work."""
        pairs = zip(self._marks[::2], self._marks[1::2], strict=True)
        if self._device.type == "cuda":
            return sum(start.elapsed_time(end) for start, end in pairs) / 1000
        return float(sum(end - start for start, end in pairs))

    def _mark(self, *_: object) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())


class RunnerClock:
    """Adds up the time inside some kinds of runners, from reading a source on: the models' share of a call."""

    def __init__(self, kinds: Sequence[type], device: torch.device) -> None:
        self._kinds = kinds
        self._device = device
        self.seconds = 0.0

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Stand around these methods inside the block."""
        originals = [
            (kind, name, getattr(kind, name)) for kind in self._kinds for name in RUNNER_WORK if hasattr(kind, name)
        ]
        for kind, name, method in originals:
            setattr(kind, name, self._timed(method))
        try:
            yield
        finally:
            for kind, name, method in originals:
                setattr(kind, name, method)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = now(self._device)
            result = method(*arguments, **keywords)
            self.seconds += now(self._device) - start
            return result

        return timed


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection would be charged to whichever method runs at that moment; collect between turns instead."""
    gc.collect()
    gc.freeze()  # what is alive now is left out of later collections, which makes them fast
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
