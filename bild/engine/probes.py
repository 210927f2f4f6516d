"""A few values of many matrices, placed so that all of them are read in less time than a step of a model takes.

Knows no model. To look at every row means to touch every page of the weights; reading is bound by how many cache lines
and pages are touched, and by how many views torch has to walk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor


class Probes:
    """Values of (R, D) matrices: of every column, and of every n-th row, n given beside each matrix. They are views, so
    the memory that they were taken from is nobody else's as long as they are."""

    def __init__(self, matrices: Iterable[tuple[Tensor, int]]) -> None:
        # torch copies views of one layout in one loop, others one by one, at ten times the price.
        alike: defaultdict[Hashable, list[Tensor]] = defaultdict(list)
        for matrix, rows in matrices:
            for view in staircase(matrix.detach(), rows):
                alike[view.dtype, view.shape, view.stride()].append(view)
        self._views = list(alike.values())
        self._values = list(map(torch.cat, self._views))

    def unchanged(self) -> bool:
        """Whether all of the values are what they were."""
        return all(map(torch.equal, map(torch.cat, self._views), self._values))


def staircase(matrix: Tensor, rows: int) -> list[Tensor]:
    """(N, run) views of an (R, D) matrix that hold a value of every column and of every ``rows``-th row: the first of
    these rows gives its first ``run`` columns, the next one the next ``run``, as many as there must be; from the top
    again where there are fewer columns than rows."""
    seen = matrix[::rows]
    height, width = seen.shape
    run = max(1, width // height)
    steps = width // run
    views = [part[:, : steps * run].unflatten(1, (steps, run)).diagonal().T for part in seen.split(steps)]
    rest = seen[:1, min(height, steps) * run :]  # of the columns, where they do not go up in the rows
    return views if rest.numel() == 0 else [*views, rest]
