"""One analysis: outputs, positions, step costs, systems and times, put together from what is kept of each.

Knows a loaded pair, a task's rows and policies; knows nothing about Hydra, tables or reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset

import bild
from bild.policies.base import Policy
from bild.sources.base import DraftSource
from pipelines.analysis.agreement import agreement
from pipelines.analysis.costs import SOURCES, step_costs
from pipelines.analysis.lossless import Costs, by_draft_length
from pipelines.analysis.settings import LOSSLESS, MIXING, AnalysisSettings, System
from pipelines.analysis.tables import SERIES
from pipelines.data.task import Task
from pipelines.decoding import scoring
from pipelines.decoding.decode import Decoding, in_chunks
from pipelines.decoding.grid import possible
from pipelines.decoding.pair import Pair
from pipelines.decoding.positions import FORMAT, SCORING, Positions, score
from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.store import ChunkStore
from pipelines.evaluation import latency, measures, results
from pipelines.evaluation.bench import Bench, Settings
from pipelines.evaluation.run import LABELS, baselines, quality_entry
from pipelines.evaluation.timings import Timing, TimingLog
from pipelines.files import write_json
from pipelines.models.fingerprint import key


@dataclass(frozen=True)
class Analyzed:
    """The numbers of an analysis."""

    content: dict[str, Any]
    timing_log: TimingLog
    """what lets a killed run continue; to be removed once the result is safe"""


class Analysis:
    """A pair on the rows of a split, and what has been made of them so far."""

    def __init__(self, pair: Pair, task: Task, dataset: Dataset, decoding: Decoding, settings: Settings) -> None:
        self._pair = pair
        self._task = task
        self._batch_size = settings.batch_size
        self._references = list(dataset["target"])
        self._bench = Bench(pair, task, dataset, decoding, settings)
        self._decoder = self._bench.decoder
        self._guesses = isinstance(pair.small, DraftSource) and not pair.small.has_head

    def run(self, systems: Sequence[System], asked: AnalysisSettings) -> Analyzed:
        """Do what is not done yet, and put the numbers together."""
        alone = baselines(self._pair)
        systems, left_out = self._possible(systems)
        policies = {**alone, **{system.name: system.policy for system in systems}}
        log = self._bench.log({name: self._bench.key(policy) for name, policy in policies.items()})
        with log.held():
            _say("each model alone")
            decoded = {name: self._decode(policy, LABELS[name]) for name, policy in alone.items()}
            _say("both models on every position of what the large one writes")
            positions = self._positions(decoded["large"])
            _say(f"{len(systems)} systems")
            for system in systems:
                # Lossless texts are the large model's, and only needed to be counted.
                rows = self._bench.timed_rows if system.series == LOSSLESS else None
                decoded[system.name] = self._decode(system.policy, system.name, rows)
            _say("step costs")
            steps = self._steps(decoded["large"], asked.draft_length + 1, log)
            timed = {**alone, **{system.name: system.policy for system in systems if system.series != MIXING}}
            _say(f"time, one by one, of {len(timed)} systems")
            timings = self._bench.timed(timed, log)
        seed = self._decoder.decoding.seed
        entries = self._entries(policies, decoded, timings)
        lossless = {int(one.setting): entries[one.name] for one in systems if one.series == LOSSLESS}
        content = {
            "models": {role: asdict(model) for role, model in self._pair.described.items()},
            "decoding": asdict(self._decoder.decoding),
            "run": self._bench.described(timings.values(), timings["large"]),
            "agreement": agreement(positions, asked.bins, seed, self._guesses),
            "steps": steps,
            "alone_ms_per_token": (ms := _ms_per_token(timings, decoded, list(alone))),
            "draft_lengths": by_draft_length(
                [positions[row] for row in self._bench.timed_rows],
                sorted(lossless),
                self._decoder.decoding.max_new_tokens,
                Costs.of(steps, ms),
                lossless,
            ),
            "baselines": {name: entries[name] for name in alone},
            "systems": [
                {
                    "series": one.series,
                    "setting": one.setting,
                    "policy": results.policy_fields(one.policy),
                    **entries[one.name],
                }
                for one in systems
                if one.series != LOSSLESS
            ],
            "left_out": left_out,
        }
        return Analyzed(content, log)

    def _possible(self, systems: Sequence[System]) -> tuple[list[System], list[str]]:
        """The systems of every series that can be run whole, and why each of the others cannot."""
        reasons: dict[str, str] = {}
        for system in systems:
            _, told = possible([system.policy], [SERIES[system.series]], self._decoder.check)
            for reason in told:
                reasons.setdefault(system.series, reason)
        for reason in reasons.values():
            print(f"left out: {reason}", flush=True)
        return [system for system in systems if system.series not in reasons], list(reasons.values())

    def _decode(self, policy: Policy, label: str, rows: Sequence[int] | None = None) -> dict[int, DecodedRow]:
        """What a policy writes for these rows of the split (None = all of them), by row."""
        found = self._bench.written(policy, label, rows)
        return dict(zip(range(len(found)) if rows is None else rows, found, strict=True))

    def _positions(self, large: Mapping[int, DecodedRow]) -> list[Positions]:
        def answer(rows: Sequence[int]) -> list[Positions]:
            return score(self._decoder, [inputs[row] for row in rows], [large[row].tokens for row in rows])

        inputs, both = self._bench.inputs, [self._bench.key(one) for one in (bild.LargeOnly(), bild.Speculative())]
        store = ChunkStore(self._bench.keep("positions", key(both, SCORING)), FORMAT)
        return in_chunks(range(len(inputs)), inputs, answer, self._batch_size, store, "positions")

    def _steps(self, large: Mapping[int, DecodedRow], widest: int, log: TimingLog) -> dict[str, Any]:
        """Measured once in a run, however often that is killed."""
        file = log.folder / "steps.json"
        if not file.exists():
            timed = self._bench.timed_rows
            rows = [timed[place] for place in latency.chosen_rows(len(timed), SOURCES)]
            inputs, outputs = [self._bench.inputs[row] for row in rows], [large[row].tokens for row in rows]
            write_json(step_costs(self._decoder, inputs, outputs, widest), file)
        return json.loads(file.read_text(encoding="utf-8"))

    def _entries(
        self,
        policies: Mapping[str, Policy],
        decoded: Mapping[str, Mapping[int, DecodedRow]],
        timings: Mapping[str, list[Timing]],
    ) -> dict[str, dict[str, Any]]:
        """By name: what evaluate says of a method, as far as it was measured."""
        metric, seed = self._task.metric, self._decoder.decoding.seed
        large = scoring.row_statistics(metric, [row.text for row in decoded["large"].values()], self._references)
        entries = {}
        for name, policy in policies.items():
            rows = list(decoded[name].values())
            beside = [decoded["large"][row] for row in decoded[name]]
            entry = {
                "label": LABELS[name] if name in LABELS else results.policy_label(policy),
                "summary": results.policy_summary(policy),
                "counts": measures.counts(rows),
                "rates": measures.rates(rows, beside, self._decoder.eos),
            }
            if not isinstance(policy, bild.Speculative):  # whose texts are the large model's
                statistics = scoring.row_statistics(metric, [row.text for row in rows], self._references)
                entry["quality"] = quality_entry(metric, statistics, large, seed)
            if name in timings:
                entry["latency"] = measures.latency(timings[name], decoded[name], timings["large"], seed)
            entries[name] = entry
        return entries


def _ms_per_token(
    timings: Mapping[str, list[Timing]], decoded: Mapping[str, Mapping[int, DecodedRow]], roles: Sequence[str]
) -> dict[str, float]:
    """Milliseconds per step of each of these models alone, encoders left out."""
    found = {}
    for role in roles:
        counts = measures.counts([decoded[role][timing.row] for timing in timings[role]])
        found[role] = float(measures.decode_only(timings[role]).sum()) / counts[f"{role}_steps"]
    return found


def _say(stage: str) -> None:
    print(f"       {stage}", flush=True)
