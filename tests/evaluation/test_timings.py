"""The log of a measurement: whole rows come back, torn ones do not, and one run at a time writes it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import UserError
from pipelines.evaluation import timings
from pipelines.evaluation.timings import Timing, TimingLog

ROOT = Path(__file__).resolve().parents[2]


def row(number: int) -> list[Timing]:
    return [Timing(number, "large", 10.0 + number, 2.0, [5, 1]), Timing(number, "small", 3.0, None, [6, 1])]


@pytest.fixture
def log(tmp_path):
    made = TimingLog(tmp_path / "log")
    with made.held():
        yield made


def test_rows_come_back_as_they_were(log):
    assert log.read() == []
    log.append(row(3))
    log.append(row(0))
    assert TimingLog(log.folder).read() == row(3) + row(0)
    log.remove()
    assert not log.folder.exists()


@pytest.mark.parametrize("torn", ['[{"row": 4, "meth', "7", '[{"row": 4}]', "[7]"])
def test_a_torn_line_is_dropped_and_what_follows_stands_alone(log, torn):
    log.append(row(3))
    [file] = log.folder.glob("*.jsonl")
    with file.open("a") as stream:
        stream.write(torn)
    assert log.read() == row(3)
    log.append(row(5))
    assert log.read() == row(3) + row(5)


def test_a_timing_tells_which_process_measured_it(log):
    other = subprocess.run(
        [sys.executable, "-c", "from pipelines.evaluation.timings import PROCESS; print(PROCESS)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert row(0)[0].process == timings.PROCESS != other
    log.append([replace(timing, process=other) for timing in row(0)])
    assert {timing.process for timing in log.read()} == {other}


HOLD = """
import sys
from pathlib import Path
from pipelines.evaluation.timings import TimingLog
with TimingLog(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_of_the_same_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "log"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is writing there now"), TimingLog(folder).held():
            pass
    finally:
        other.kill()
        other.communicate()
    with TimingLog(folder).held():
        assert TimingLog(folder).read() == []
