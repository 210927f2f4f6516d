"""The rows of a split through any policy of a pair, written and timed; what is finished is kept.

Knows a pair, a task's rows and a folder; knows nothing about scores or about which policies there are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from datasets import Dataset

from bild.policies.base import Policy
from pipelines.data.task import Task
from pipelines.decoding.decode import Decoding, decode_rows, source_ids
from pipelines.decoding.pair import Pair, pair_key
from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.store import ChunkStore
from pipelines.evaluation import latency, measures, provenance
from pipelines.evaluation.timings import Timing, TimingLog
from pipelines.models.fingerprint import key


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How rows are written and timed, apart from what is decoded."""

    batch_size: int
    latency_limit: int | None
    """examples to time; None = all"""
    cache: Path
    """folder of decoded texts and of timings in progress"""
    seeds: int = 1
    """texts of each row that are scored where texts are drawn, each from a seed of its own"""


class Bench:
    """What methods are measured on. Texts are kept by fingerprint, so that no other run writes them again.

    Raises:
        UserError: a row that is too long for these models.
    """

    def __init__(self, pair: Pair, task: Task, dataset: Dataset, decoding: Decoding, settings: Settings) -> None:
        self.inputs = source_ids(dataset["source"], pair.tokenizer, task)
        """token ids of every source"""
        self.timed_rows = latency.chosen_rows(len(self.inputs), settings.latency_limit)
        """indices of those that are timed"""
        self.decoder = pair.decoder(decoding)
        self.decoder.check_room(self.inputs)
        self._pair = pair
        self._settings = settings

    def beside(self, pair: Pair) -> Bench:
        """The same rows for another pair of the same large model, such as one in which something else drafts."""
        other = copy.copy(self)
        other._pair = pair
        other.decoder = pair.decoder(self.decoder.decoding)
        return other

    def seeded(self, seed: int) -> Bench:
        """The same rows for the same pair, drawn from another seed."""
        other = copy.copy(self)
        other.decoder = self._pair.decoder(replace(self.decoder.decoding, seed=seed))
        return other

    def key(self, policy: Policy) -> str:
        """The fingerprint of what a policy writes for all rows."""
        return pair_key(self._pair, policy, self.inputs, self.decoder.decoding, self._settings.batch_size)

    def keep(self, kind: str, name: str) -> Path:
        """The folder of what is kept under a fingerprint."""
        return self._settings.cache / kind / name

    def written(self, policy: Policy, label: str, rows: Sequence[int] | None = None) -> list[DecodedRow]:
        """What a policy writes for these rows (None = all); ``label`` is that of the progress bar."""
        name = self.key(policy) if rows is None else key(self.key(policy), rows)
        store = ChunkStore(self.keep("decoded", name))
        return decode_rows(self.decoder, policy, self.inputs, self._settings.batch_size, store, label, rows)

    def log(self, keys: Mapping[str, str] | Sequence[str]) -> TimingLog:
        """Of the times of the methods with these fingerprints; to be removed once they are safe elsewhere.

        Times of another machine, or of another number of threads, do not belong beside these.
        """
        return TimingLog(self.keep("timing", key(keys, self.timed_rows, provenance.machine())))

    def timed(
        self, policies: Mapping[str, Policy], log: TimingLog, others: Mapping[str, Bench] = MappingProxyType({})
    ) -> dict[str, list[Timing]]:
        """By method, in the order of the rows, what each timed row took, one by one, methods taking turns on it.

        ``others``: the benches of the methods that are decoded ``beside`` this one's pair.
        """
        decoders = {name: others.get(name, self).decoder for name in policies}
        timings = latency.measure(decoders, policies, self.inputs, self.timed_rows, log)
        return {name: sorted((t for t in timings if t.method == name), key=lambda t: t.row) for name in policies}

    def described(self, timings: Iterable[Sequence[Timing]], large: Sequence[Timing]) -> dict[str, Any]:
        """What a result says of how it was measured: ``timings`` of every method, ``large`` alone among them."""
        return {
            "device": self.decoder.device.type,
            "batch_size": self._settings.batch_size,
            "timed_examples": len(self.timed_rows),
            "timing_processes": len({timing.process for one in timings for timing in one}),
            "steadiness": measures.steadiness(large),
        }
