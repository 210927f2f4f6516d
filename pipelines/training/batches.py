"""Which examples make up which update: a pure function of the lengths, the settings, the seed and the epoch.

Knows lengths; knows nothing about text, tensors or the trainer. Because nothing here depends on what happened before,
a resumed run sees the same data in the same order, and so do several processes or accumulated batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

CHUNK = 50  # updates that are sorted by length together


class Updates:
    """The examples of every optimizer step of every epoch.

    Args:
        lengths: tokens of each example, (source, target), (N, 2).
        batch_size: examples per update; not used with ``tokens_per_batch``.
        tokens_per_batch: most tokens per update, padding and both sides counted; None = ``batch_size`` decides.
        group_by_length: put examples of similar length together; always so with ``tokens_per_batch``.
        parts: into how many pieces an update is cut; none of them may be empty.
        seed: of the order.
    """

    def __init__(
        self,
        lengths: Sequence[tuple[int, int]] | np.ndarray,
        *,
        batch_size: int,
        tokens_per_batch: int | None,
        group_by_length: bool,
        parts: int,
        seed: int,
    ) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64).reshape(-1, 2)
        self._batch_size = batch_size
        self._group_by_length = group_by_length
        self._seed = seed
        self._fixed = None if tokens_per_batch is None else self._by_tokens(tokens_per_batch, parts)

    def __len__(self) -> int:
        """Updates per epoch. Examples that do not fill an update are left for another epoch's order."""
        return len(self._lengths) // self._batch_size if self._fixed is None else len(self._fixed)

    def epoch(self, epoch: int) -> list[list[int]]:
        """The examples of each update of an epoch, counted from 0."""
        random = np.random.default_rng([self._seed, epoch])
        if self._fixed is not None:
            return [self._fixed[index] for index in random.permutation(len(self._fixed))]
        order = random.permutation(len(self._lengths))[: len(self) * self._batch_size]
        if self._group_by_length:
            size = self._batch_size * CHUNK
            for start in range(0, len(order), size):
                order[start : start + size] = self._sorted(order[start : start + size])
        updates = order.reshape(-1, self._batch_size)
        return (random.permutation(updates) if self._group_by_length else updates).tolist()

    def _sorted(self, examples: np.ndarray) -> np.ndarray:
        """By target length, then by source length: the decoder is where most of the padding costs."""
        return examples[np.lexsort((self._lengths[examples, 0], self._lengths[examples, 1]))]

    def _by_tokens(self, tokens: int, parts: int) -> list[list[int]]:
        """Updates of at most ``tokens``, made once, so that every epoch has the same number of them."""
        shuffled = np.random.default_rng([self._seed]).permutation(len(self._lengths))
        updates: list[list[int]] = []
        current: list[int] = []
        longest = np.zeros(2, dtype=np.int64)
        for example in self._sorted(shuffled).tolist():
            widest = np.maximum(longest, self._lengths[example])
            if len(current) >= parts and int(widest.sum()) * (len(current) + 1) > tokens:
                updates.append(current)
                current, widest = [], self._lengths[example]
            current.append(example)
            longest = widest
        return [*updates, current] if len(current) >= parts else updates


class MicroBatches:
    """A batch sampler for one process: the pieces of each update that it computes, in order.

    Args:
        updates: the data of every step.
        accumulation: pieces per process and update.
        rank, processes: which process this is, and of how many.
    """

    def __init__(self, updates: Updates, *, accumulation: int, rank: int, processes: int) -> None:
        self.epoch = 0
        """the next epoch to iterate over"""
        self._updates = updates
        self._accumulation = accumulation
        self._rank = rank
        self._processes = processes

    def __len__(self) -> int:
        return len(self._updates) * self._accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for examples in self._updates.epoch(self.epoch):
            pieces = np.array_split(examples, self._accumulation * self._processes)
            for piece in pieces[self._rank :: self._processes]:
                yield piece.tolist()
