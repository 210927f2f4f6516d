"""What a policy's texts lose against the large model's, example by example, and how far that may be off.

Knows tokens and statistics of texts; knows nothing about models, policies or time. Two of the risks are means of one
bounded number per example, for which a bound is exact; a corpus score is not, and its bound is approximate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.calibration.bounds import least_rows, upper_bound
from pipelines.decoding.scoring import HEADLINE, aggregate, paired_bootstrap, row_scores


@dataclass(frozen=True)
class MethodTexts:
    """What one method wrote for N examples."""

    tokens: Sequence[list[int]]
    """(N) lists of token ids, EOS included"""
    metric: str
    statistics: np.ndarray
    """``scoring.row_statistics``, (N, k), of the texts against their references"""


class Risk(ABC):
    """One way to say how much a policy loses. The losses of all rows decide it, so that rows can be drawn again."""

    title: str
    guaranteed: bool
    """the bound holds for every distribution of rows, at any number of them"""
    limit: float
    """no loss is larger"""

    @abstractmethod
    def losses(self, large: MethodTexts, policy: MethodTexts) -> np.ndarray:
        """(N, ...) one entry per example."""

    @abstractmethod
    def estimate(self, losses: np.ndarray) -> float:
        """The risk on these rows."""

    @abstractmethod
    def bound(self, losses: np.ndarray, delta: float) -> float:
        """What the risk on new rows stays below with probability ``1 - delta`` over the draw of these."""

    @abstractmethod
    def least_rows(self, max_drop: float, delta: float) -> int:
        """The fewest rows on which a policy without any loss has a bound of at most ``max_drop``."""


class PerExample(Risk):
    """The mean of losses in [0, 1]: guaranteed by Hoeffding's and Bentkus' inequalities."""

    guaranteed = True
    limit = 1.0

    def estimate(self, losses: np.ndarray) -> float:
        return float(losses.mean())

    def bound(self, losses: np.ndarray, delta: float) -> float:
        return upper_bound(self.estimate(losses), len(losses), delta)

    def least_rows(self, max_drop: float, delta: float) -> int:
        return least_rows(max_drop, delta)


@dataclass(frozen=True)
class Disagreement(PerExample):
    """Share of positions at which two texts have not the same token.

    Both are lists of token ids with EOS, without start and padding; position t of one is compared with position t of
    the other, there are as many positions as the longer has tokens, and one that the shorter has not differs.
    """

    title = "token disagreement with the large model"

    def losses(self, large: MethodTexts, policy: MethodTexts) -> np.ndarray:
        pairs = zip(large.tokens, policy.tokens, strict=True)
        return np.array([_disagreement(one, other) for one, other in pairs])


@dataclass(frozen=True)
class ScoreLoss(PerExample):
    """What a text's own score lacks to that of the large model's text, 0 to 1; a text that is better loses nothing.

    Sentence BLEU (effective order, exponential smoothing) or the task's ROUGE, each over 100. Its mean is at least the
    mean drop of these scores.
    """

    title = "loss of sentence score against the large model"

    def losses(self, large: MethodTexts, policy: MethodTexts) -> np.ndarray:
        scores = [row_scores(written.metric, written.statistics) for written in (large, policy)]
        return np.clip(scores[0] - scores[1], 0, 1)


@dataclass(frozen=True)
class CorpusDrop(Risk):
    """Points of corpus BLEU, or of the task's mean ROUGE, below the large model; bounded by a paired bootstrap."""

    metric: str
    seed: int

    title = "drop of the corpus score below the large model's, in points"
    guaranteed = False
    limit = 100.0

    def losses(self, large: MethodTexts, policy: MethodTexts) -> np.ndarray:
        """(N, 2k): statistics of the large model's texts, then of the policy's."""
        return np.concatenate([large.statistics, policy.statistics], axis=1)

    def estimate(self, losses: np.ndarray) -> float:
        return self._drop(*np.split(losses, 2, axis=1))

    def bound(self, losses: np.ndarray, delta: float) -> float:
        large, policy = np.split(losses, 2, axis=1)
        # Both ends of an interval lie outside with probability delta each.
        return paired_bootstrap(large, policy, self._drop, self.seed, level=1 - 2 * delta).high

    def least_rows(self, max_drop: float, delta: float) -> int:
        """One: where nothing is lost, no resample loses anything."""
        return 1

    def _drop(self, large: np.ndarray, policy: np.ndarray) -> float:
        headline = HEADLINE[self.metric]
        return aggregate(self.metric, large)[headline] - aggregate(self.metric, policy)[headline]


def _disagreement(one: Sequence[int], other: Sequence[int]) -> float:
    longest = max(len(one), len(other))
    same = sum(token == its for token, its in zip(one, other, strict=False))
    return 0.0 if longest == 0 else 1 - same / longest
