"""What a calibration promises, in numbers and in one sentence that claims no more than was shown.

Knows a choice and its tests; knows nothing about how they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.calibration.choice import Choice
from pipelines.calibration.risks import Risk
from pipelines.cli import counted

KINDS = {True: "guaranteed", False: "approximate"}


def promise(
    risk: Risk,
    max_drop: float,
    delta: float,
    choice: Choice,
    tests: Mapping[int, Mapping[str, Any]],
    rows: int,
    not_fresh: int,
) -> dict[str, Any]:
    """The promise that goes with a choice. The bound of a test is for rows that have chosen nothing: where some have
    chosen the checkpoints, whatever the risk, it is approximate.

    Args:
        tests: by point, "risk" and "bound" on the rows of the tests.
        rows: number of these.
        not_fresh: how many of them have served to choose the checkpoints before.
    """
    terms = {"risk": type(risk).__name__, "max_drop": max_drop, "delta": delta, "rows": rows, "not_fresh": not_fresh}
    if not choice.certified:
        return {**terms, "kind": "lossless", "estimate": None, "bound": None, "statement": lossless(risk, max_drop)}
    found = tests[choice.chosen]
    kind = KINDS[risk.guaranteed and not_fresh == 0]
    sentence = (
        f"{kind}: over new examples like these, {risk.title} of at most {max_drop:g} in expectation, with probability "
        f"{1 - delta:g} over the draw of the {counted(rows, 'example')} of the tests"
    )
    if not_fresh:
        sentence += f" if these were new: {not_fresh} of them have helped to choose the checkpoints"
    return {**terms, "kind": kind, "estimate": found["risk"], "bound": found["bound"], "statement": sentence}


def lossless(risk: Risk, max_drop: float) -> str:
    """The sentence where no point has passed."""
    return (
        f"lossless, the texts are the large model's: no faster point was shown to keep {risk.title} within {max_drop:g}"
    )
