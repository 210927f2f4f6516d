"""Some examples of a split, written and timed with any policy; what is finished is kept.

Knows a pair, a task and rows; knows nothing about risks or about which policy is better.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from bild.policies.base import Policy
from pipelines.calibration.grid import Point
from pipelines.calibration.risks import Written
from pipelines.data.task import Task
from pipelines.decoding import scoring
from pipelines.decoding.decode import Decoding, decode_rows, source_ids
from pipelines.decoding.pair import Pair, pair_key
from pipelines.decoding.store import ChunkStore
from pipelines.evaluation import latency, provenance
from pipelines.evaluation.run import Settings
from pipelines.evaluation.timings import Timing, TimingLog
from pipelines.models.fingerprint import key


class Writer:
    """The examples of ``dataset`` through the models of a pair."""

    def __init__(self, pair: Pair, task: Task, dataset: Dataset, decoding: Decoding, settings: Settings) -> None:
        self._pair = pair
        self._task = task
        self._dataset = dataset
        self._settings = settings
        self._inputs = source_ids(dataset["source"], pair.tokenizer, task)
        self._decoder = pair.decoder(decoding)

    def check(self) -> None:
        """Raise ``UserError`` on a row that these models cannot decode."""
        self._decoder.check_room(self._inputs)

    def written(self, policy: Policy, label: str) -> Written:
        """What a policy writes for all rows; ``label`` is that of the progress bar."""
        size = self._settings.batch_size
        store = ChunkStore(self._settings.cache / "decoded" / self._key(policy))
        rows = decode_rows(self._decoder, policy, self._inputs, size, store, label)
        texts, references = [row.text for row in rows], list(self._dataset["target"])
        statistics = scoring.row_statistics(self._task.metric, texts, references)
        return Written([row.tokens for row in rows], self._task.metric, statistics)

    def log(self, points: Sequence[Point]) -> TimingLog:
        """Of the times of these points on this machine; to be removed once they are safe elsewhere."""
        keys = [self._key(point.policy) for point in points]
        return TimingLog(self._settings.cache / "timing" / key(keys, self._timed_rows(), provenance.machine()))

    def timed(self, points: Sequence[Point], log: TimingLog) -> list[list[Timing]]:
        """By point, what each of the timed rows took, one by one, all points taking turns on every row."""
        policies = {str(place): point.policy for place, point in enumerate(points)}
        timings = latency.measure(
            dict.fromkeys(policies, self._decoder), policies, self._inputs, self._timed_rows(), log
        )
        by_name = {name: [timing for timing in timings if timing.method == name] for name in policies}
        return [sorted(by_name[name], key=lambda timing: timing.row) for name in policies]

    def _timed_rows(self) -> list[int]:
        return latency.chosen_rows(len(self._inputs), self._settings.latency_limit)

    def _key(self, policy: Policy) -> str:
        return pair_key(self._pair, policy, self._inputs, self._decoder.decoding, self._settings.batch_size)
