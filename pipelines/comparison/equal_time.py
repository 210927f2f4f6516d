"""Which system writes best in the same time: at each of some speedups the best point of each system that is as fast.

Knows the entries of a panel and arrays of statistics; knows nothing about models, files or tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.decoding.scoring import HEADLINE, aggregate, quality_difference

SPEEDUPS = (1.25, 1.5, 1.75, 2.0)  # over the large model alone


def best_at_speedups(
    entries: Sequence[dict[str, Any]], statistics: Mapping[str, np.ndarray], metric: str, seed: int
) -> list[dict[str, Any]]:
    """For each of ``SPEEDUPS`` that a point reaches, the best point of each system that does, and how far it is off the
    best of all systems there, with the interval of that difference.

    Args:
        entries: of the points that are compared, of a result.
        statistics: by method, of the large model alone too: what is lossless is as good as that, whatever it drew.
        metric, seed: of the scores, and of the bootstrap.
    """
    behind = {entry["method"]: statistics["large" if entry["lossless"] else entry["method"]] for entry in entries}
    scores = {name: aggregate(metric, one)[HEADLINE[metric]] for name, one in behind.items()}
    found = []
    for speedup in SPEEDUPS:
        leaders: dict[str, str] = {}
        for entry in entries:
            name, system = entry["method"], entry["system"]
            if entry["latency"]["speedup"]["value"] < speedup:
                continue
            if system not in leaders or scores[name] > scores[leaders[system]]:
                leaders[system] = name
        if leaders:
            best = max(leaders.values(), key=lambda name: scores[name])
            points = [
                {"method": name, "off_best": asdict(quality_difference(metric, behind[best], behind[name], seed))}
                for name in leaders.values()
            ]
            found.append({"speedup": speedup, "best": best, "points": points})
    return found
