"""One comparison: all systems at every temperature, on the same rows, timed in turn with each other.

Knows a loaded pair, a task's rows and points; knows nothing about Hydra, tables or plots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from datasets import Dataset

from pipelines.comparison.systems import Point
from pipelines.data.task import Task
from pipelines.decoding.decode import Decoding
from pipelines.decoding.grid import possible
from pipelines.decoding.pair import Pair
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.results import policy_fields
from pipelines.evaluation.run import baselines, measure
from pipelines.evaluation.timings import TimingLog

KEPT = ("method", "quality", "counts", "rates", "latency", "predicted_speedup")  # of a method's numbers


@dataclass(frozen=True)
class Compared:
    """The numbers of a comparison."""

    content: dict[str, Any]
    """models, panels"""
    timing_logs: list[TimingLog]
    """what lets a killed run continue; to be removed once the result is safe"""


def compare(
    pair: Pair,
    task: Task,
    dataset: Dataset,
    points: Sequence[Point],
    decoding: Decoding,
    temperatures: Sequence[float],
    settings: Settings,
) -> Compared:
    """Measure every point at every temperature (0 = greedy). What cannot decode at one is left out there, by name."""
    panels: list[dict[str, Any]] = []
    logs = []
    for temperature in temperatures:
        written = replace(decoding, do_sample=temperature > 0, temperature=temperature)
        decoder = pair.decoder(written)
        fine, reasons = possible(points, [point.name for point in points], decoder)
        for reason in reasons:
            print(f"left out: {reason}", flush=True)
        named = {point.name: point for point in fine}
        policies = {**baselines(pair), **{name: point.policy for name, point in named.items()}}
        print(f"temperature {temperature:g}: {len(policies)} methods", flush=True)
        done = measure(pair, task, dataset, policies, written, settings)
        logs.append(done.timing_log)
        methods = []
        for entry in done.content["methods"]:
            point = named.get(entry["method"])
            told = {"system": entry["method"], "setting": "", "policy": None, "label": entry["label"]}
            if point is not None:
                told = {
                    "system": point.system,
                    "setting": point.setting,
                    "policy": policy_fields(point.policy),
                    "label": point.name,
                }
            methods.append({**told, **{name: entry[name] for name in KEPT}})
        panels.append(
            {
                "temperature": temperature,
                "decoding": done.content["decoding"],
                "run": done.content["run"],
                "cost_ratio": done.content["cost_ratio"],
                "methods": methods,
                "left_out": reasons,
            }
        )
    models = {role: asdict(model) for role, model in pair.described.items()}
    return Compared({"models": models, "panels": panels}, logs)
