"""A few values of many matrices, compared with what they were in less time than a step of a model. Knows no model.

Time goes by what is touched: a row that is looked into is a page of memory, and a page is a tenth of a microsecond. To
look at every row means to touch every page of the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor


class Probes:
    """Values of (R, D) matrices: one of each column, and where a number of rows stands beside a matrix, one of the
    first row of every so many. They are views, so the memory that they look at is nobody else's meanwhile."""

    def __init__(self, matrices: Iterable[tuple[Tensor, int | None]]) -> None:
        # torch copies views of one layout in one loop, but for others it prepares a loop each.
        alike: defaultdict[Hashable, list[Tensor]] = defaultdict(list)
        for matrix, rows in matrices:
            values = matrix.detach()
            for view in [values[0]] if rows is None else [values[0], values[::rows, 0]]:
                alike[view.dtype, view.shape, view.stride()].append(view)
        self._views = list(alike.values())
        self._values = list(map(torch.cat, self._views))

    def unchanged(self) -> bool:
        """Whether all of the values are what they were."""
        return all(map(torch.equal, map(torch.cat, self._views), self._values))
