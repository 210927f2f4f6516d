"""What README.md shows of a study."""

import pytest

from pipelines.calibration import tables
from pipelines.readme import coverage_table


def test_the_table_shows_what_the_file_holds():
    outcome = {"lossy": 0.75, "held": 0.964, "held_out": 0.91, "p_value": 1.0, "passed": True, "speedup": 1.234}
    check = {"risk": "CorpusDrop", "guaranteed": False, "max_drop": 0.5, "delta": 0.1, "bound": outcome}
    content = {
        "fits": {"task": "made"},
        "pool": {"splits": ["validation", "test"], "examples": 2014},
        "draws": {"resplits": 200, "selection": 507, "test": 506},
        "checks": [{**check, "mean": {**outcome, "held": 0.5}}],
        "provenance": {"date": "2026-11-21T00:00:00", "git": {"revision": "0123456789"}},
    }
    lines = coverage_table(content).splitlines()
    assert lines[2] == (
        "| CorpusDrop (approximate) | 0.5 | 75.0 % | 1.23x | 96.4 % | 4.8 % | 1.000 | passed | 91.0 % | 50.0 % |"
    )
    assert lines[-1].startswith(
        "made, 200 re-splits: 507 + 506 rows drawn from the 2,014 of validation and test; delta 0.1"
    )


@pytest.mark.parametrize(
    ("lossy", "held", "passed", "broken", "outcome"),
    [
        (1.0, 0.95, True, 0.05, "passed"),
        (0.5, 0.9, True, 0.2, "passed"),  # 10 % of all re-splits, 20 % of those that count
        (0.5, 0.8, False, 0.4, "failed"),
        (0.2, 1.0, True, 0.0, "passed"),
        (0.19, 1.0, True, 0.0, "vacuous"),
        (0.0, 1.0, True, None, "vacuous"),
    ],
)
def test_a_promise_that_was_hardly_ever_made_was_not_kept(lossy, held, passed, broken, outcome):
    counted = {"lossy": lossy, "held": held, "passed": passed}
    assert tables.broken(counted) == (None if broken is None else pytest.approx(broken))
    assert tables.outcome(counted) == outcome
