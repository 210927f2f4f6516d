"""Some examples of a split, written and timed with the points of a grid.

Knows a pair, a task and rows; knows nothing about risks or about which policy is better.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from bild.policies.base import Policy
from pipelines.calibration.grid import Candidate
from pipelines.calibration.risks import MethodTexts
from pipelines.data.task import Task
from pipelines.decoding import scoring
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import Pair
from pipelines.evaluation.bench import Bench, Settings
from pipelines.evaluation.timings import Timing, TimingLog


class Writer:
    """The examples of ``dataset`` through the models of a pair."""

    def __init__(self, pair: Pair, task: Task, dataset: Dataset, decoding: Decoding, settings: Settings) -> None:
        self.bench = Bench(pair, task, dataset, decoding, settings)
        self._metric = task.metric
        self._references = list(dataset["target"])

    def written(self, policy: Policy, label: str) -> MethodTexts:
        """What a policy writes for all rows; ``label`` is that of the progress bar."""
        rows = self.bench.written(policy, label)
        statistics = scoring.row_statistics(self._metric, [row.text for row in rows], self._references)
        return MethodTexts([row.tokens for row in rows], self._metric, statistics)

    def log(self, points: Sequence[Candidate]) -> TimingLog:
        """Of the times of these points on this machine; to be removed once they are safe elsewhere."""
        return self.bench.log([self.bench.key(point.policy) for point in points])

    def timed(self, points: Sequence[Candidate], log: TimingLog) -> list[list[Timing]]:
        """By point, what each of the timed rows took, one by one, all points taking turns on every row."""
        return list(self.bench.timed({str(place): point.policy for place, point in enumerate(points)}, log).values())
