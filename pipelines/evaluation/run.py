"""One evaluation: decode a split with a policy and its baselines, time them in turn, and put the numbers together.

Knows a loaded pair, a task's rows and a policy; knows nothing about Hydra, tables or reports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

import bild
from bild.policies.base import Policy
from bild.sampling import Sampler
from bild.sources.base import DraftSource
from pipelines.data.task import Task, fingerprint
from pipelines.decoding import scoring
from pipelines.decoding.decode import Decoding, count_cut
from pipelines.decoding.pair import Pair
from pipelines.decoding.rows import DecodedRow
from pipelines.evaluation import measures, results
from pipelines.evaluation.bench import Bench, Settings
from pipelines.evaluation.timings import Timing, TimingLog

BASELINES: dict[str, Policy] = {"large": bild.LargeOnly(), "small": bild.SmallOnly()}
LABELS = {"large": "large alone", "small": "small alone"}


@dataclass(frozen=True)
class Measured:
    """What some methods wrote and how long it took them."""

    content: dict[str, Any]
    """the sections of a result that depend on it: models, decoding, run, methods, cost_ratio"""
    decoded: dict[str, list[DecodedRow]]
    """of the first seed"""
    statistics: dict[str, np.ndarray]
    """(N, S, k) ``scoring.row_statistics`` of what was written from each of S seeds"""
    timings: dict[str, list[Timing]]
    """of the timed examples, by row"""
    timing_log: TimingLog
    """what lets a killed run continue; to be removed once the result is safe"""


@dataclass(frozen=True)
class Evaluated:
    """The numbers of an evaluation and its examples."""

    content: dict[str, Any]
    """the sections of a result that depend on what was measured: models, policy, decoding, run, methods, cost_ratio"""
    rows: pa.Table
    timing_log: TimingLog
    """what lets a killed run continue; to be removed once the result is safe"""


def evaluate(
    pair: Pair, task: Task, dataset: Dataset, policy: Policy, decoding: Decoding, settings: Settings
) -> Evaluated:
    """Decode, score and time a policy beside the large model alone, and the small one if it writes alone."""
    policies = methods(policy, pair)
    measured = measure(pair, task, dataset, policies, decoding, settings, others={})
    content = measured.content | {"policy": results.policy_fields(policy)}
    content["run"] |= {"policy_method": next(name for name, one in policies.items() if one == policy)}
    texts = list(zip(dataset["source"], dataset["target"], strict=True))
    rows = results.rows_table(texts, measured.decoded, measured.timings, pair.tokenizer)
    return Evaluated(content, rows, measured.timing_log)


def measure(
    pair: Pair,
    task: Task,
    dataset: Dataset,
    policies: Mapping[str, Policy],
    decoding: Decoding,
    settings: Settings,
    others: Mapping[str, Pair],
) -> Measured:
    """Decode, score and time any number of methods by name, ``baselines`` among them.

    Every method writes the whole split in batches (kept in ``settings.cache`` by fingerprint, so that a sweep writes
    its baselines once); then all of them decode the timed examples one by one, taking turns. Texts that are drawn are
    scored for ``settings.seeds`` seeds from the decoding's on; counts, rates and times are those of the first.

    Args:
        others: pairs of the same large model, of the methods that another small side than the pair's drafts for.
    """
    bench = Bench(pair, task, dataset, decoding, settings)
    benches = {**dict.fromkeys(policies, bench), **{name: bench.beside(one) for name, one in others.items()}}
    for name, one in policies.items():
        benches[name].decoder.check(one)
    log = bench.log({name: benches[name].key(one) for name, one in policies.items()})
    seeds = _seeds(decoding, settings)
    references = list(dataset["target"])
    decoded, statistics = {}, {}
    with log.held():
        for name, one in policies.items():
            draws = [benches[name].seeded(seed).written(one, _label(name, one)) for seed in seeds]
            scored = [scoring.row_statistics(task.metric, [row.text for row in rows], references) for rows in draws]
            decoded[name], statistics[name] = draws[0], np.stack(scored, axis=1)
        timings = bench.timed(policies, log, benches)
    content = {
        "models": {role: asdict(model) for role, model in pair.described.items()},
        "decoding": asdict(decoding),
        "run": {
            **bench.described(timings.values(), timings["large"]),
            "shortened": count_cut(dataset["source"], bench.inputs, pair.tokenizer, task),
            "seeds": list(seeds),
        },
        **_numbers(policies, decoded, statistics, timings, task.metric, bench.decoder.eos, decoding.seed, others),
    }
    return Measured(content, decoded, statistics, timings, log)


def baselines(pair: Pair) -> dict[str, Policy]:
    """Each model alone, by name. What only drafts is no baseline."""
    only_drafts = isinstance(pair.small, DraftSource) and not pair.small.writes_alone
    return {name: policy for name, policy in BASELINES.items() if name == "large" or not only_drafts}


def methods(policy: Policy, pair: Pair) -> dict[str, Policy]:
    """The methods by name; a policy that is a baseline is not run twice."""
    alone = baselines(pair)
    return alone if policy in alone.values() else {**alone, "policy": policy}


def describe_task(task: Task, dataset: Dataset, split: str, limit: int | None) -> dict[str, Any]:
    """The "task" section of a result."""
    return {
        "name": task.name,
        "version": task.version,
        "metric": task.metric,
        "split": split,
        "limit": limit,
        "examples": len(dataset),
        "data": fingerprint(dataset),
        "prefix": task.prefix,
        "prompt": None if task.prompt is None else {**asdict(task.prompt), "examples": list(task.examples)},
        "source_length": task.source_length,
        "target_length": task.target_length,
    }


def _seeds(decoding: Decoding, settings: Settings) -> range:
    """Of the texts that are scored; nothing is drawn where decoding is greedy."""
    sampler = Sampler(do_sample=decoding.do_sample, temperature=decoding.temperature)
    return range(decoding.seed, decoding.seed + (1 if sampler.greedy else settings.seeds))


def _numbers(
    policies: Mapping[str, Policy],
    decoded: dict[str, list[DecodedRow]],
    statistics: dict[str, np.ndarray],
    timings: dict[str, list[Timing]],
    metric: str,
    eos: Sequence[int],
    seed: int,
    others: Collection[str],
) -> dict[str, Any]:
    """The sections "methods" and "cost_ratio"."""
    c = _cost_ratio(decoded, timings)
    entries = []
    for name, policy in policies.items():
        total = measures.counts(decoded[name])
        entries.append(
            {
                "method": name,
                "label": _label(name, policy),
                "summary": results.policy_summary(policy),
                "quality": quality_entry(metric, statistics[name], statistics["large"], seed),
                "counts": total,
                "written_by": measures.written_by(decoded[name]),
                "rates": measures.rates(decoded[name], decoded["large"], eos),
                "latency": measures.latency(timings[name], decoded[name], timings["large"], seed),
                # The cost of a small step is that of the pair's small side, not of what drafts for the others.
                "predicted_speedup": None if name in others else measures.predicted_speedup(total, c),
            }
        )
    return {"methods": entries, "cost_ratio": c}


def _cost_ratio(decoded: dict[str, list[DecodedRow]], timings: dict[str, list[Timing]]) -> float | None:
    """c; None where there is no small model alone to measure it on."""
    if "small" not in timings:
        return None
    steps = {name: measures.counts([decoded[name][t.row] for t in timings[name]]) for name in BASELINES}
    return measures.cost_ratio(
        timings["small"], timings["large"], steps["small"]["small_steps"], steps["large"]["large_steps"]
    )


def quality_entry(metric: str, statistics: np.ndarray, large: np.ndarray, seed: int) -> dict[str, Any]:
    """What an entry says of quality: the scores behind ``row_statistics``, (N, k) or (N, S, k) of S texts a row, and
    beside the large model's."""
    quality = scoring.quality(metric, statistics)
    difference = scoring.quality_difference(metric, large, statistics, seed)
    return {"score": quality.headline, **asdict(quality), "difference_to_large": asdict(difference)}


def _label(name: str, policy: Policy) -> str:
    return LABELS[name] if name in LABELS else results.policy_label(policy)
