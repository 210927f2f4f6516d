"""How alike two models are, without any threshold: their next-token distributions on the same given outputs.

Knows a decoder and token ids; knows nothing about policies, files or tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.decoding.decode import BatchDecoder, in_chunks
from pipelines.decoding.positions import Positions, score
from pipelines.decoding.store import ChunkStore


def overlap(
    decoder: BatchDecoder,
    inputs: Sequence[list[int]],
    outputs: Sequence[list[int]],
    batch_size: int,
    label: str | None,
    store: ChunkStore[Positions] | None,
) -> np.ndarray:
    """Teacher-forced likeness on the large model's own outputs.

    Args:
        inputs: N rows of encoder token ids.
        outputs: N rows of written token ids, EOS included, without the decoder start token.
        batch_size: rows at a time.
        label, store: as in ``in_chunks``; the store must belong to exactly these arguments.

    Returns:
        (N, 3) float64: the sum over the row's positions of sum_v min(p(v), q(v)), the number of positions at which
        both models would choose the same token, and the number of positions. The first over the third is Leviathan's
        alpha on these texts (E sum min(p, q), temperature 1), the second over the third its greedy counterpart.
    """

    def answer(rows: Sequence[int]) -> list[Positions]:
        return score(decoder, [inputs[row] for row in rows], [outputs[row] for row in rows])

    found = in_chunks(range(len(inputs)), inputs, answer, batch_size, store, label)
    return np.array([[sum(row.plain_overlap), sum(row.agrees), len(row.agrees)] for row in found])
