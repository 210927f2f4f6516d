"""Time per example at batch 1: all methods on the same inputs, in turn, in one process, on one clock.

Knows how to run a method and a clock; knows nothing about scores.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from bild.policies.base import Policy
from pipelines.decoding.decode import Decoder
from pipelines.decoding.rows import kept_tokens
from pipelines.evaluation.timings import Timing, TimingLog

Moment = float | torch.cuda.Event
"""a point in time: seconds of the processor's clock, or a mark in a GPU's queue of work"""


class EncoderClock:
    """Adds up the time that models spend in their encoders, by hooks on ``get_encoder()``.

    It never waits for the device, so that it does not slow down what is timed around it.
    """

    def __init__(self, models: Sequence[PreTrainedModel], device: torch.device) -> None:
        self._models = models
        self._device = device
        self._moments: list[Moment] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the encoders inside the block."""
        encoders = [model.get_encoder() for model in self._models]
        hooks = [encoder.register_forward_pre_hook(self._mark) for encoder in encoders]
        hooks += [encoder.register_forward_hook(self._mark) for encoder in encoders]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def reset(self) -> None:
        """Begin a new example."""
        self._moments = []

    @property
    def calls(self) -> int:
        """How many encoders have run since ``reset``."""
        return len(self._moments) // 2

    @property
    def seconds(self) -> float:
        """What they took. To be read once the device has done all that it was asked to do."""
        return sum(map(_seconds, self._moments[::2], self._moments[1::2]))

    def _mark(self, *_: object) -> None:
        self._moments.append(_moment(self._device))


def now(device: torch.device) -> float:
    """Seconds on a steady clock, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _moment(device: torch.device) -> Moment:
    """This moment, as the device reaches it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start: Moment, end: Moment) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


def chosen_rows(n_rows: int, limit: int | None) -> list[int]:
    """At most ``limit`` row indices, evenly spread over a split of ``n_rows``; all of them if None."""
    if limit is None or limit >= n_rows:
        return list(range(n_rows))
    return np.linspace(0, n_rows - 1, limit).round().astype(int).tolist()


def measure(
    decoder: Decoder,
    policies: Mapping[str, Policy],
    models: Sequence[PreTrainedModel],
    inputs: Sequence[list[int]],
    rows: Sequence[int],
    log: TimingLog,
) -> list[Timing]:
    """Time every method on every row, the methods taking turns within each row.

    Each method first decodes one example of every source length, untimed, so that no method pays for a shape that is
    seen for the first time. The order of methods rotates from row to row.

    Args:
        policies: the methods by name, baselines included.
        models: whose encoders are clocked.
        inputs: token ids of every source of the split.
        rows: indices of those to time.
        log: of the finished rows; a killed run goes on behind them. The caller holds it, and removes it at the end.
    """
    timings = log.read()
    finished = {timing.row for timing in timings}
    pending = [row for row in rows if row not in finished]
    if not pending:
        return timings
    _warm(decoder, policies, inputs, pending)
    clock = EncoderClock(models, decoder.device)
    progress = tqdm(pending, desc="timing, one by one", unit="row", dynamic_ncols=True, leave=False)
    with clock.attached(), _no_garbage_collection():
        for index, row in enumerate(progress):
            names = list(policies)
            turn = index % len(names)
            new = [_time(decoder, policies[name], name, inputs, row, clock) for name in names[turn:] + names[:turn]]
            log.append(new)
            timings += new
            gc.collect()
    return timings


def _time(
    decoder: Decoder, policy: Policy, name: str, inputs: Sequence[list[int]], row: int, clock: EncoderClock
) -> Timing:
    ids, mask = decoder.pad([inputs[row]])
    clock.reset()
    start = now(decoder.device)
    out = decoder.run(policy, ids, mask, [row])
    seconds = now(decoder.device) - start
    seen = clock.calls == policy.uses_large + policy.uses_small
    return Timing(row, name, 1000 * seconds, 1000 * clock.seconds if seen else None, kept_tokens(out.trace[0]))


def _warm(decoder: Decoder, policies: Mapping[str, Policy], inputs: Sequence[list[int]], rows: Sequence[int]) -> None:
    """One untimed example of every source length by every method."""
    one_per_length = {len(inputs[row]): row for row in rows}
    progress = tqdm(one_per_length.values(), desc="warming up", unit="row", dynamic_ncols=True, leave=False)
    for row in progress:
        for policy in policies.values():
            decoder.run(policy, *decoder.pad([inputs[row]]), [row])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection would be charged to whichever method runs at that moment; the caller collects between rows."""
    gc.collect()
    # What is alive now is left out of later collections, which makes them fast.
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
