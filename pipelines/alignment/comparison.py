"""What alignment changed: one small model before and after, against the same large model on the same rows.

Knows pairs, decoded rows and statistics; knows nothing about training, results or tables. Every difference comes with a
paired bootstrap interval over the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bild
from bild.policies.base import Policy
from pipelines.alignment.overlap import overlap
from pipelines.decoding.decode import Decoding, decode_rows
from pipelines.decoding.pair import Pair, pair_key
from pipelines.decoding.positions import FORMAT, SCORING
from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.scoring import HEADLINE, Interval, aggregate, paired_bootstrap, row_statistics
from pipelines.decoding.store import ChunkStore
from pipelines.models.fingerprint import key

# Writes what the large model alone would write, from full drafts: what is left is how alike the two models are.
LOSSLESS = bild.BigLittle(fallback=0.0, rollback=0.0, verify_eos=True, draft_length=5)


@dataclass(frozen=True)
class Examples:
    """The rows of the comparison, N of them."""

    inputs: Sequence[list[int]]
    """encoder token ids"""
    references: Sequence[str]
    large_texts: Sequence[str]
    """what the large model alone writes"""
    large_tokens: Sequence[list[int]]
    """the same as token ids, EOS included where it was written"""
    metric: str
    """"bleu" or "rouge" """


@dataclass(frozen=True)
class RowStatistics:
    """One small model, row by row. Each array has N rows and is turned into a figure by a function of its rows."""

    counts: np.ndarray
    """(N, 4) of decoding with the policy: accepted, drafted, tokens, large steps"""
    lossless: np.ndarray
    """(N, 2) of decoding with ``LOSSLESS``: tokens, large steps"""
    likeness: np.ndarray
    """(N, 3) as ``overlap`` returns it"""
    quality: np.ndarray
    """(N, k) statistics of the texts that the small model writes alone, as ``row_statistics`` returns them"""
    policy_quality: np.ndarray
    """(N, k) the same of the texts written with the policy"""


@dataclass(frozen=True)
class Figure:
    """One number before and after; NaN where there is nothing to divide by (no draft, no large step)."""

    label: str
    before: float
    after: float
    difference: Interval
    """after - before with its 95 % interval"""


class Comparison:
    """The rows; ``measure`` for the large model and each small one.

    Args:
        cache: folder of what was written and scored, by fingerprint, so that a comparison that was killed goes on.
    """

    def __init__(self, decoding: Decoding, policy: Policy, examples: Examples, batch_size: int, cache: Path) -> None:
        self._decoding = decoding
        self._policy = policy
        self._examples = examples
        self._batch_size = batch_size
        self._cache = cache

    @property
    def large_quality(self) -> float:
        """Headline score of the large model alone on the same rows."""
        return _score(self._examples.metric, self._statistics(self._examples.large_texts))

    def measure(self, pair: Pair, label: str) -> RowStatistics:
        """Decode with the policy and alone, and compare the two models on the large one's outputs."""
        with_policy = self._decode(pair, self._policy, f"{label}: with the policy")
        alone = self._decode(pair, bild.SmallOnly(), f"{label}: small alone")
        lossless = self._decode(pair, LOSSLESS, f"{label}: lossless")
        stats = [row.stats for row in with_policy]
        return RowStatistics(
            counts=np.array([[s.accepted, s.drafted, s.tokens, s.large_steps] for s in stats], dtype=np.float64),
            lossless=np.array([[row.stats.tokens, row.stats.large_steps] for row in lossless], dtype=np.float64),
            likeness=self._likeness(pair, f"{label}: likeness"),
            quality=self._statistics([row.text for row in alone]),
            policy_quality=self._statistics([row.text for row in with_policy]),
        )

    def _decode(self, pair: Pair, policy: Policy, label: str) -> list[DecodedRow]:
        store = ChunkStore(self._cache / "decoded" / self._key(pair, policy))
        return decode_rows(pair.decoder(self._decoding), policy, self._examples.inputs, self._batch_size, store, label)

    def _likeness(self, pair: Pair, label: str) -> np.ndarray:
        inputs, outputs = self._examples.inputs, self._examples.large_tokens
        store = ChunkStore(self._cache / "positions" / key(self._key(pair, LOSSLESS), outputs, SCORING), FORMAT)
        return overlap(pair.decoder(self._decoding), inputs, outputs, self._batch_size, label, store)

    def _key(self, pair: Pair, policy: Policy) -> str:
        return pair_key(pair, policy, self._examples.inputs, self._decoding, self._batch_size)

    def _statistics(self, texts: Sequence[str]) -> np.ndarray:
        return row_statistics(self._examples.metric, texts, self._examples.references)


def figures(before: RowStatistics, after: RowStatistics, metric: str, seed: int) -> dict[str, Figure]:
    """The figures of an alignment by name; ``seed`` makes the intervals repeatable."""

    def figure(label: str, part: str, value: Callable[[np.ndarray], float]) -> Figure:
        old, new = getattr(before, part), getattr(after, part)
        difference = paired_bootstrap(old, new, lambda ours, theirs: value(theirs) - value(ours), seed)
        return Figure(label, value(old), value(new), difference)

    return {
        "acceptance": figure("acceptance (accepted / drafted)", "counts", _ratio(0, 1)),
        "mean_accepted_length": figure("mean accepted length (tokens / large step)", "counts", _ratio(2, 3)),
        "block_efficiency": figure(
            f"block efficiency (lossless, drafts of {LOSSLESS.draft_length})", "lossless", _ratio(0, 1)
        ),
        "overlap": figure("alpha (mean of sum min(p, q))", "likeness", _ratio(0, 2)),
        "agreement": figure("same greedy choice as the large model", "likeness", _ratio(1, 2)),
        "quality": figure(f"small alone, {HEADLINE[metric]}", "quality", lambda rows: _score(metric, rows)),
        "policy_quality": figure(
            f"with the policy, {HEADLINE[metric]}", "policy_quality", lambda rows: _score(metric, rows)
        ),
    }


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure with null in place of NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return None if isinstance(value, float) and np.isnan(value) else value

    return plain(asdict(figure))


def _ratio(above: int, below: int) -> Callable[[np.ndarray], float]:
    """A ratio of two columns' sums, NaN for 0 / 0 and x / 0."""

    def value(rows: np.ndarray) -> float:
        total = rows.sum(0)
        return float(total[above] / total[below]) if total[below] > 0 else float("nan")

    return value


def _score(metric: str, rows: np.ndarray) -> float:
    return aggregate(metric, rows)[HEADLINE[metric]]
