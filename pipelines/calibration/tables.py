"""Calibrations and studies of coverage as tables of short strings, for the terminal and for README.md alike.

Knows the schema of their files; knows nothing about models or how the numbers were made.
"""

from __future__ import annotations

from typing import Any

from pipelines.cli import counted
from pipelines.evaluation.table import NOTHING, number, percent, print_rows, speedup

FEW = 0.2  # share of re-splits with a lossy choice below which a check is vacuous
CURVE_TITLES = ("policy", "speedup, proposing", "score", "risk, proposing", "risk, tested", "bound", "outcome")
COVERAGE_TITLES = (
    "risk",
    "max_drop",
    "a point passes",
    "speedup",
    "promise held",
    "broken where a point passes",
    "binomial p",
    "outcome",
    "held on rows left out",
    "held, mean as test",
)


def print_curve(content: dict[str, Any]) -> None:
    """Every point, in the order of risk."""
    rows = [curve_row(point) for point in sorted(content["curve"], key=lambda point: point["risk"])]
    print_rows(f"{content['task']['name']}, risk: {content['promise']['risk']}", CURVE_TITLES, rows)


def print_coverage(content: dict[str, Any]) -> None:
    """Every risk and bound of a study."""
    print_rows(drawn(content), COVERAGE_TITLES, [coverage_row(check) for check in content["checks"]])


def drawn(content: dict[str, Any]) -> str:
    """How a study's calibrations were drawn."""
    pool, draws = content["pool"], content["draws"]
    return (
        f"{counted(draws['resplits'], 're-split')}: {draws['selection']} + {draws['test']} rows drawn from the "
        f"{pool['examples']:,} of {' and '.join(pool['splits'])}"
    )


def speed(content: dict[str, Any]) -> str:
    """How fast the chosen point is, on rows that have not chosen it."""
    found = content["speed"]
    where = f"on {counted(found['examples'], 'example')} of the tests"
    return f"speedup {speedup(found['speedup'], is_unit=False)} over the large model alone, {where}"


def curve_row(point: dict[str, Any]) -> list[str]:
    """One point as short strings."""
    test = point["test"]
    figures = (None, None) if test is None else (test["risk"], test["bound"])
    tested = NOTHING if test is None else {True: "passed", False: "failed"}[test["passed"]]
    return [
        point["label"],
        speedup(point["speedup"], is_unit=False),
        number(point["score"], 2),
        number(point["risk"], 4),
        *(number(figure, 4) for figure in figures),
        "lossless" if point["lossless"] else tested,
    ]


def coverage_row(check: dict[str, Any]) -> list[str]:
    """One risk and one bound as short strings."""
    bound = check["bound"]
    return [
        check["risk"] + ("" if check["guaranteed"] else " (approximate)"),
        f"{check['max_drop']:g}",
        percent(bound["lossy"]),
        f"{bound['speedup']:.2f}x",
        percent(bound["held"]),
        percent(broken(bound)),
        f"{bound['p_value']:.3f}",
        outcome(bound),
        percent(bound["held_out"]),
        percent(check["mean"]["held"]),
    ]


def broken(counted: dict[str, Any]) -> float | None:
    """Share of the re-splits in which a point that is not lossless passed whose chosen point breaks the promise: only
    there it can. No bound holds it below delta, which is of all re-splits; None where there are none."""
    return None if counted["lossy"] == 0 else (1 - counted["held"]) / counted["lossy"]


def outcome(counted: dict[str, Any]) -> str:
    """What a check has shown: nothing where the promise was hardly ever of a point that could break it."""
    if counted["lossy"] < FEW:
        return "vacuous"
    return "passed" if counted["passed"] else "failed"
