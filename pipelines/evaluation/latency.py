"""Time per example at batch 1: all methods on the same inputs, in turn, in one process, on one clock.

Knows how to run a method and a clock; knows nothing about scores or files other than the log of a run in progress.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from bild.policies.base import Policy
from pipelines.decoding.decode import Decoder
from pipelines.decoding.rows import kept_tokens


@dataclass(frozen=True)
class Timing:
    """One example decoded alone by one method."""

    row: int
    """index of the example in the split"""
    method: str
    milliseconds: float
    """end to end: encoders and decoding, token ids on the device to token ids on the device"""
    encoder_milliseconds: float | None
    """the part spent in the encoders of the models that the method uses; None if an engine hides it"""
    tokens: list[int]
    """what was written, EOS included"""


class EncoderClock:
    """Adds up the time that models spend in their encoders, by hooks on ``get_encoder()``."""

    def __init__(self, models: Sequence[PreTrainedModel], device: torch.device) -> None:
        self._models = models
        self._device = device
        self._start = 0.0
        self.seconds = 0.0
        self.calls = 0

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the encoders inside the block."""
        encoders = [model.get_encoder() for model in self._models]
        hooks = [encoder.register_forward_pre_hook(self._before) for encoder in encoders]
        hooks += [encoder.register_forward_hook(self._after) for encoder in encoders]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def reset(self) -> None:
        """Begin a new example."""
        self.seconds, self.calls = 0.0, 0

    def _before(self, *_: object) -> None:
        self._start = now(self._device)

    def _after(self, *_: object) -> None:
        self.seconds += now(self._device) - self._start
        self.calls += 1


def now(device: torch.device) -> float:
    """Seconds on a steady clock, once the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


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
    log: Path,
) -> list[Timing]:
    """Time every method on every row, the methods taking turns within each row.

    Each method first decodes one example of every source length, untimed, so that no method pays for a shape that is
    seen for the first time. The order of methods rotates from row to row.

    Args:
        policies: the methods by name, baselines included.
        models: whose encoders are clocked.
        inputs: token ids of every source of the split.
        rows: indices of those to time.
        log: JSON lines of the finished rows; a killed run goes on behind them. The caller removes it at the end.
    """
    timings = _read_log(log, set(policies))
    finished = {timing.row for timing in timings}
    pending = [row for row in rows if row not in finished]
    if not pending:
        return timings
    _warm(decoder, policies, inputs, pending)
    clock = EncoderClock(models, decoder.device)
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = tqdm(pending, desc="timing, one by one", unit="row", dynamic_ncols=True, leave=False)
    with clock.attached(), _no_garbage_collection(), log.open("a", encoding="utf-8") as file:
        for index, row in enumerate(progress):
            names = list(policies)
            turn = index % len(names)
            new = [_time(decoder, policies[name], name, inputs, row, clock) for name in names[turn:] + names[:turn]]
            file.write(json.dumps([asdict(timing) for timing in new]) + "\n")
            file.flush()
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


def _read_log(log: Path, methods: set[str]) -> list[Timing]:
    """The rows that an interrupted run has finished; a line that was cut off is dropped."""
    if not log.exists():
        return []
    timings: list[Timing] = []
    whole_lines: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entries = [Timing(**entry) for entry in json.loads(line)]
        except (json.JSONDecodeError, TypeError):
            break
        if {entry.method for entry in entries} == methods:
            timings += entries
            whole_lines.append(line + "\n")
    # What follows must start on a line of its own.
    log.write_text("".join(whole_lines), encoding="utf-8")
    return timings


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
