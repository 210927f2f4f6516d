"""Methods take turns on every input, runs follow one another. Knows methods; knows nothing of what they write."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.clock import no_garbage_collection
from benchmarks.methods import Batch, Decoded, Method


@dataclass(frozen=True)
class Times:
    """Of one method, in seconds. R runs, N inputs."""

    total: np.ndarray
    """(R, N) from ids on the device to ids on the device, encoders included"""
    encoder: np.ndarray
    """(R, N) the encoders' part of it"""

    @property
    def decoding(self) -> np.ndarray:
        """(R, N) the rest."""
        return self.total - self.encoder


def take_turns(
    methods: Sequence[Method],
    batches: Sequence[Batch],
    *,
    max_new_tokens: int,
    runs: int,
    say: Callable[[str], None],
) -> tuple[dict[str, list[Decoded]], dict[str, Times]]:
    """Decode every batch by every method, once untimed and ``runs`` times on the clock.

    The untimed pass warms every shape and yields what is compared. Within a batch methods take turns; who begins
    rotates from batch to batch and from run to run.
    """
    outputs: dict[str, list[Decoded]] = {method.name: [] for method in methods}
    for batch in batches:
        for method in methods:
            outputs[method.name].append(method.decode(batch, max_new_tokens))
    say("warm; every method has decoded every input once")
    seconds = {method.name: np.zeros((2, runs, len(batches))) for method in methods}
    with no_garbage_collection():
        for run in range(runs):
            for place, batch in enumerate(batches):
                turn = (run + place) % len(methods)
                for method in (*methods[turn:], *methods[:turn]):
                    written = max(map(len, outputs[method.name][place].tokens))
                    seconds[method.name][:, run, place] = method.seconds(batch, max_new_tokens, written)
                gc.collect()
            say(f"run {run + 1} of {runs}")
    return outputs, {name: Times(*found) for name, found in seconds.items()}
