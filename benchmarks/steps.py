"""What a decoder step costs at given shapes, with random weights: by width and engine, beside the peers' cost per
token, and beside the time in which memory could deliver what a step must read."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import truediv
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import bild
from benchmarks import peer_ctranslate2
from benchmarks.clock import no_garbage_collection, now
from benchmarks.machine import say
from benchmarks.methods import BASELINE, Method
from benchmarks.own import BildMethod
from benchmarks.peer_transformers import TransformersGenerate
from benchmarks.roofline import step_bytes
from benchmarks.shapes import random_model, thin
from bild.engine import make_runner

VERIFY_WIDTH = 8
FIRST_ID = 2
"""sources are drawn from the ids behind padding and EOS"""


@dataclass(frozen=True)
class Probe:
    """One quantity: ``kind`` "step" (of ``name`` = engine, over ``width`` tokens), "fixed" (the same at a thin shape),
    "short" (the same with a head of some ids alone) or "token" (of ``name`` = method, per token)."""

    kind: str
    name: str
    width: int
    seconds: Callable[[], float]


class Stepper:
    """One engine's runner, filled with a source and some tokens, that takes the same step again and again."""

    def __init__(
        self,
        model: PreTrainedModel,
        engine: str,
        source: Tensor,
        length: int,
        widest: int,
        listed: Tensor | None = None,
    ) -> None:
        self._runner = make_runner(model, engine, length + widest, listed)
        self._device = model.device
        self._tokens = torch.zeros(1, length + widest, dtype=torch.long)
        with torch.inference_mode():
            self._runner.prefill(input_ids=source, attention_mask=torch.ones_like(source))
            self._extend(length)

    @torch.inference_mode()
    def seconds(self, width: int, repeats: int) -> float:
        """Median time of one step over ``width`` tokens, of a few in a row behind one that is not counted."""
        times = []
        for _ in range(repeats + 1):
            lengths = self._runner.lengths
            start = now(self._device)
            self._extend(width)
            times.append(now(self._device) - start)
            self._runner.rollback(lengths)
        return median(times[1:])

    def _extend(self, width: int) -> None:
        self._runner.extend(self._tokens[:, :width], [width])


def run_steps(options: argparse.Namespace, bandwidth: float) -> dict[str, Any]:
    """Every shape, one after the other. ``bandwidth``: bytes a second that memory delivers."""
    skipped: list[dict[str, str]] = []
    shapes = {name: _measure(name, shape, options, skipped) for name, shape in options.shapes}
    for measured in shapes.values():
        for entry in (*measured["engines"], *measured["methods"]):
            entry["limit_ms"] = 1000 * entry["bytes"] / bandwidth
            entry["share_of_limit"] = entry["limit_ms"] / entry["ms"]
    return {"baseline": BASELINE, "skipped": skipped, "shapes": shapes}


def _measure(
    name: str, shape: dict[str, Any], options: argparse.Namespace, skipped: list[dict[str, str]]
) -> dict[str, Any]:
    """All figures of one shape, but for what needs the bandwidth."""
    say(f"{name}: building")
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    model, narrow = random_model(shape, dtype, device), random_model(thin(shape), dtype, device)
    peers, absent = peer_ctranslate2.contestants(model, options.peers)
    skipped += [{**one, "name": f"{one['name']} at {name}"} for one in absent]
    own = [
        BildMethod(label, policy, engine, model, model)
        for engine in options.engines
        for label, policy in (("large alone", bild.LargeOnly()), ("drafts alone", bild.SmallOnly()))
    ]
    methods: list[Method] = [TransformersGenerate(BASELINE, model), *own, *peers]
    source = _source(model, options.source_length)
    probes = [*_step_probes(model, options, "step", options.widths), *_step_probes(narrow, options, "fixed", [1])]
    if options.shortlist is not None:
        probes += _step_probes(model, options, "short", [1], _random_ids(model, options.shortlist))
    probes += [Probe("token", one.name, 1, _per_token(one, source, options.max_new_tokens)) for one in methods]
    runs = _take_turns(probes, options.runs, name)
    beside = {one.name: runs["token", one.name, 1] for one in (methods[0], *peers)}
    by_weights = {
        int8: step_bytes(model, int8=int8, source=options.source_length, length=options.max_new_tokens // 2)
        for int8 in (False, True)
    }
    return {
        "shape": shape,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "engines": [
            {"engine": engine, "bytes": by_weights["int8" in engine], **_engine_figures(runs, engine, beside)}
            for engine in options.engines
        ],
        "methods": [
            {"method": one.name, "bytes": by_weights["int8" in one.name], **_beside(runs["token", one.name, 1], beside)}
            for one in methods
        ],
        "steps": [
            {"engine": of, "width": width, "ms": median(times), "runs": times}
            for (kind, of, width), times in runs.items()
            if kind == "step"
        ],
    }


def _beside(times: list[float], others: dict[str, list[float]]) -> dict[str, Any]:
    """A cost in milliseconds, and how many times that of the others per token: medians of the ratios of runs."""
    return {
        "ms": median(times),
        "runs": times,
        "speedup_over": {name: median(map(truediv, other, times)) for name, other in others.items()},
    }


def _engine_figures(
    runs: dict[tuple[str, str, int], list[float]], engine: str, others: dict[str, list[float]]
) -> dict[str, Any]:
    """One step of one token, and what it is made of."""
    step, fixed = runs["step", engine, 1], runs["fixed", engine, 1]
    short = runs.get(("short", engine, 1))
    verify = runs.get(("step", engine, VERIFY_WIDTH))
    return {
        **_beside(step, others),
        "shortlist": None if short is None else _shortlist_figures(short, step),
        "fixed_ms": median(fixed),
        "fixed_share": median(map(truediv, fixed, step)),
        "verify_over_step": None if verify is None else median(map(truediv, verify, step)),
    }


def _shortlist_figures(short: list[float], step: list[float]) -> dict[str, Any]:
    """The step with a head of some ids alone, and how many times as long it takes with the whole head."""
    return {"ms": median(short), "runs": short, "whole_head_over_shortlist": median(map(truediv, step, short))}


def _random_ids(model: PreTrainedModel, count: int) -> Tensor:
    """(count,) ids of a model, ascending."""
    drawn = torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(0))[:count]
    return drawn.sort().values.to(model.device)


def _source(model: PreTrainedModel, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_ID, model.config.vocab_size, (1, length), generator=generator).to(model.device)


def _step_probes(
    model: PreTrainedModel,
    options: argparse.Namespace,
    kind: str,
    widths: Sequence[int],
    listed: Tensor | None = None,
) -> list[Probe]:
    """One per width and engine, at half of the length that methods write. ``listed``: ids of the head, None = all."""

    def probe(stepper: Stepper, engine: str, width: int) -> Probe:
        return Probe(kind, engine, width, lambda: stepper.seconds(width, options.repeats))

    source = _source(model, options.source_length)
    steppers = {
        engine: Stepper(model, engine, source, options.max_new_tokens // 2, max(widths), listed)
        for engine in options.engines
    }
    return [probe(stepper, engine, width) for width in widths for engine, stepper in steppers.items()]


def _per_token(method: Method, source: Tensor, tokens: int) -> Callable[[], float]:
    """Seconds of decoding, the encoder left out, per token of an output of ``tokens`` tokens."""

    def seconds() -> float:
        total, encoder = method.seconds((source, torch.ones_like(source)), tokens, tokens)
        return (total - encoder) / tokens

    return seconds


def _take_turns(probes: Sequence[Probe], runs: int, name: str) -> dict[tuple[str, str, int], list[float]]:
    """Milliseconds of every probe in every run, by kind, name and width; who begins rotates. A run before warms."""
    found: dict[tuple[str, str, int], list[float]] = {(one.kind, one.name, one.width): [] for one in probes}
    for one in probes:
        one.seconds()
    with no_garbage_collection():
        for run in range(runs):
            turn = run * len(probes) // runs
            for one in (*probes[turn:], *probes[:turn]):
                found[one.kind, one.name, one.width].append(1000 * one.seconds())
                gc.collect()
            say(f"{name}: run {run + 1} of {runs}")
    return found
