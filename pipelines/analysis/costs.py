"""What one step of either side of a pair costs on this machine, by the number of tokens in it.

Knows runners and a clock; knows nothing about policies. Widths take turns, on several sources, in the middle of their
outputs; what is reported are medians. A large step of w tokens follows a draft of w - 1, as in a round: where the small
model is a part of the large one, what it has read is not read again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.clock import no_garbage_collection, now
from pipelines.decoding.decode import BatchDecoder
from pipelines.decoding.runners import open_runners
from pipelines.decoding.scoring import paired_bootstrap

SOURCES = 10
REPEATS = 9  # on each of them
Probe = tuple[str, int]
"""a model's role, and tokens in a step"""


def step_costs(
    decoder: BatchDecoder,
    inputs: Sequence[list[int]],
    outputs: Sequence[list[int]],
    widest: int,
) -> dict[str, Any]:
    """Time steps of what drafts over one token and of the large model over 1..``widest``, at batch 1.

    Args:
        inputs, outputs: token ids of a few sources, and of what was written for them; steps are taken behind the
            first half of it.

    Returns:
        The section "steps" of a result, without the name of an engine.
    """
    probes: list[Probe] = [("small", 1), *(("large", width) for width in range(1, widest + 1))]
    found: dict[Probe, list[list[float]]] = {probe: [] for probe in probes}
    progress = tqdm(zip(inputs, outputs, strict=True), total=len(inputs), desc="step costs", unit="row", leave=False)
    with no_garbage_collection():
        for source, written in progress:
            step = _stepper(decoder, source, written[: len(written) // 2], widest)
            for probe, times in _take_turns(probes, step).items():
                found[probe].append(times)
            gc.collect()
    return _figures(found, decoder.decoding.seed)


@torch.inference_mode()
def _stepper(decoder: BatchDecoder, source: list[int], written: list[int], widest: int) -> Callable[[Probe], float]:
    """Takes a step behind what was written, and takes it back; returns the milliseconds of the step."""
    call, runners = open_runners(decoder, [source], len(written) + widest)
    tokens = torch.cat([call.prompt, torch.tensor([written], dtype=torch.long, device=call.prompt.device)], dim=1)
    for runner in runners.values():
        new = tokens[:, runner.lengths[0] :]
        runner.extend(new, [new.shape[1]])
    block = torch.full((1, widest), int(tokens[0, -1]), device=tokens.device)

    @torch.inference_mode()
    def step(probe: Probe) -> float:
        role, width = probe
        lengths = {name: list(runner.lengths) for name, runner in runners.items()}
        if role == "large" and width > 1:  # the draft, of which nothing has read the last token
            runners["small"].extend(block[:, : width - 1], [width - 1])
        start = now(decoder.device)
        runners[role].extend(block[:, :width], [width])
        milliseconds = 1000 * (now(decoder.device) - start)
        for name, runner in runners.items():
            runner.rollback(lengths[name])
        return milliseconds

    return step


def _take_turns(probes: Sequence[Probe], step: Callable[[Probe], float]) -> dict[Probe, list[float]]:
    """Milliseconds of every probe; the first is another one each time, and a round before them all is not counted."""
    times: dict[Probe, list[float]] = {probe: [] for probe in probes}
    for repeat in range(REPEATS + 1):
        turn = repeat % len(probes)
        for probe in (*probes[turn:], *probes[:turn]):
            milliseconds = step(probe)
            if repeat > 0:
                times[probe].append(milliseconds)
    return times


def _figures(found: dict[Probe, list[list[float]]], seed: int) -> dict[str, Any]:
    """Medians; a ratio is between steps of the same turn, so that a machine's slow moments cancel out.

    Args:
        found: by probe, the turns of each source. Turns of one source are alike, so sources are redrawn whole.
    """

    def ratio(ours: np.ndarray, unit: np.ndarray) -> float:
        return float(np.median(ours / unit))

    taken = {probe: np.array(times) for probe, times in found.items()}
    one = taken["large", 1]
    over_one = {probe: asdict(paired_bootstrap(times, one, ratio, seed)) for probe, times in taken.items()}
    return {
        "sources": len(one),
        "turns": one.size,
        # Far above 1, something else used the machine: short steps slip through, long ones are interrupted.
        "median_over_fastest": max(float(np.median(times) / times.min()) for times in taken.values()),
        "small_ms": float(np.median(taken["small", 1])),
        "c": over_one["small", 1],
        "large": [
            {"width": width, "ms": float(np.median(times)), "over_one": over_one[role, width]}
            for (role, width), times in taken.items()
            if role == "large"
        ],
    }
