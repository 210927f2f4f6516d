"""Time per example at batch 1: all methods on the same inputs, in turn, in one process, on one clock.

Knows how to run a method and a clock; knows nothing about scores.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.clock import no_garbage_collection, now
from bild.policies.base import Policy
from pipelines.decoding.decode import BatchDecoder
from pipelines.decoding.rows import kept_tokens
from pipelines.evaluation.timings import Timing, TimingLog

Moment = float | torch.cuda.Event
"""a point in time: seconds of the processor's clock, or a mark in a GPU's queue of work"""


class PrefillClock:
    """A streamer that notes when it is shown the prompt: the encoders have run then, and no step has been made.

    Works for every engine, whatever its encoder is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = _moment(device)
        self._end: Moment | None = None

    def put(self, value: Tensor) -> None:
        """The first call is the prompt's."""
        if self._end is None:
            self._end = _moment(self._device)

    def end(self) -> None:
        """The text is finished, which says nothing here."""

    @property
    def seconds(self) -> float:
        """From the clock's making to the prompt. To be read once the device has done all that it was asked to do."""
        if self._end is None:
            raise RuntimeError("nothing has been decoded on this clock")
        return _seconds(self._start, self._end)


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
    decoders: Mapping[str, BatchDecoder],
    policies: Mapping[str, Policy],
    inputs: Sequence[list[int]],
    rows: Sequence[int],
    log: TimingLog,
) -> list[Timing]:
    """Time every method on every row, the methods taking turns within each row.

    Each method first decodes one example of every source length, untimed, so that no method pays for a shape that is
    seen for the first time. The order of methods rotates from row to row.

    Args:
        decoders: by method, who decodes with it.
        policies: the methods by name, baselines included.
        inputs: token ids of every source of the split.
        rows: indices of those to time.
        log: of the finished rows; a killed run goes on behind them. The caller holds it, and removes it at the end.
    """
    timings = log.read()
    finished = {timing.row for timing in timings}
    pending = [row for row in rows if row not in finished]
    if not pending:
        return timings
    _warm(decoders, policies, inputs, pending)
    progress = tqdm(pending, desc="timing, one by one", unit="row", dynamic_ncols=True, leave=False)
    with no_garbage_collection():
        for index, row in enumerate(progress):
            names = list(policies)
            turn = index % len(names)
            order = names[turn:] + names[:turn]
            new = [_time(decoders[name], policies[name], name, inputs, row) for name in order]
            log.append(new)
            timings += new
            gc.collect()
    return timings


def _time(decoder: BatchDecoder, policy: Policy, name: str, inputs: Sequence[list[int]], row: int) -> Timing:
    ids, mask = decoder.pad([inputs[row]])
    start = now(decoder.device)
    clock = PrefillClock(decoder.device)
    out = decoder.run(policy, ids, mask, [row], streamer=clock)
    seconds = now(decoder.device) - start
    return Timing(row, name, 1000 * seconds, 1000 * clock.seconds, kept_tokens(out.trace[0]))


def _warm(
    decoders: Mapping[str, BatchDecoder],
    policies: Mapping[str, Policy],
    inputs: Sequence[list[int]],
    rows: Sequence[int],
) -> None:
    """One untimed example of every source length by every method."""
    one_per_length = {len(inputs[row]): row for row in rows}
    progress = tqdm(one_per_length.values(), desc="warming up", unit="row", dynamic_ncols=True, leave=False)
    for row in progress:
        for name, policy in policies.items():
            decoders[name].run(policy, *decoders[name].pad([inputs[row]]), [row])
