"""One comparison: all systems at every temperature, on the same rows, timed in turn with each other.

Knows a loaded pair, a task's rows and points; knows nothing about Hydra, tables or plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from typing import Any

from datasets import Dataset

from pipelines.comparison.equal_time import best_at_speedups
from pipelines.comparison.systems import Point
from pipelines.data.task import Task
from pipelines.decoding.decode import Decoding
from pipelines.decoding.grid import grouped, possible
from pipelines.decoding.pair import Pair, drafted_by
from pipelines.decoding.rows import DecodedRow
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.results import policy_fields
from pipelines.evaluation.run import baselines, measure
from pipelines.evaluation.timings import TimingLog
from pipelines.models.sources import SourceConfig

KEPT = ("method", "summary", "quality", "counts", "rates", "latency", "predicted_speedup")  # of a method's numbers


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
    pair_of = _Pairs(pair, task)
    for temperature in temperatures:
        written = replace(decoding, do_sample=temperature > 0, temperature=temperature)
        fine, reasons = possible(points, [point.name for point in points], partial(pair_of.check, written))
        for line in grouped(reasons):
            print(f"left out: {line}", flush=True)
        named = {point.name: point for point in fine}
        policies = {**baselines(pair), **{name: point.policy for name, point in named.items()}}
        print(f"temperature {temperature:g}: {len(policies)} methods", flush=True)
        others = {name: pair_of(point) for name, point in named.items() if point.drafts is not None}
        done = measure(pair, task, dataset, policies, written, settings, others)
        logs.append(done.timing_log)
        first_alike = alike(done.decoded)
        methods = []
        for entry in done.content["methods"]:
            name = entry["method"]
            point = named.get(name)
            told = {"system": name, "setting": "", "policy": None, "drafts": None, "label": entry["label"]}
            if point is not None:
                told = {
                    "system": point.system,
                    "setting": point.setting,
                    "policy": policy_fields(point.policy),
                    "drafts": asdict(others[name].described["small"]) if name in others else None,
                    "label": name,
                }
            told |= {"lossless": policies[name].lossless, "same_rows_as": first_alike[name]}
            methods.append({**told, **{kept: entry[kept] for kept in KEPT}})
        own = [entry for entry in methods if entry["method"] in named]
        panels.append(
            {
                "temperature": temperature,
                "decoding": done.content["decoding"],
                "run": done.content["run"],
                "cost_ratio": done.content["cost_ratio"],
                "methods": methods,
                "best_at": best_at_speedups(own, done.statistics, task.metric, decoding.seed),
                "left_out": reasons,
            }
        )
    models = {role: asdict(model) for role, model in pair.described.items()}
    return Compared({"models": models, "panels": panels}, logs)


def alike(decoded: Mapping[str, Sequence[DecodedRow]]) -> dict[str, str | None]:
    """By method the first one before it that wrote the same tokens in the same steps in every row; None = none."""
    first: dict[Any, str] = {}
    found: dict[str, str | None] = {}
    for name, rows in decoded.items():
        written = tuple((tuple(row.tokens), astuple(row.stats)) for row in rows)
        found[name] = first.get(written)
        first.setdefault(written, name)
    return found


class _Pairs:
    """The pair that a point is decoded with: the same large model for all, and what the point's system brings to draft
    for it, which is made once."""

    def __init__(self, pair: Pair, task: Task) -> None:
        self._pair = pair
        self._task = task
        self._made: dict[SourceConfig, Pair] = {}

    def __call__(self, point: Point) -> Pair:
        """Raises ``UserError`` where what drafts cannot be made for this model."""
        if point.drafts is None:
            return self._pair
        if point.drafts not in self._made:
            self._made[point.drafts] = drafted_by(self._pair, point.drafts, self._task)
        return self._made[point.drafts]

    def check(self, decoding: Decoding, point: Point) -> None:
        """Raise ``UserError`` unless the point can decode in this way."""
        self(point).decoder(decoding).check(point.policy)
