"""Sweeps: one table and one report at the end, whatever became of a single job; a killed one goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import evaluate
from pipelines.cli import entry
from pipelines.evaluation import latency, report, sweep
from tests.conf import composed


@pytest.fixture
def swept(overrides, monkeypatch, capsys):
    """Types a sweep; returns its exit status, and the lines of standard output and of standard error."""

    def run(*words: str) -> tuple[object, list[str], list[str]]:
        sweep._say_once.cache_clear()
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "-m", *overrides, "limit=4", *words])
        status = 0
        try:
            entry("evaluate", evaluate.main)
        except SystemExit as left:
            status = left.code
        out, err = capsys.readouterr()
        # Without progress bars, which end in a carriage return.
        return status, out.splitlines(), [line for line in err.splitlines() if line.startswith("error")]

    return run


def names(folder: Path) -> list[str]:
    return [path.stem.partition("rollback")[2].partition("-")[0] for path in sorted(folder.glob("results/made/*.json"))]


def test_a_sweep_ends_with_one_table_and_one_report(swept, tmp_path):
    status, lines, errors = swept("bild.rollback=0.5,4")
    assert (status, errors) == (0, [])
    assert names(tmp_path) == ["0.5", "4"]
    # Once in each of two tables.
    assert sum("large alone" in line for line in lines) == 2
    assert sum(line.startswith("large  ") for line in lines) == 1
    shown = Path(lines[-1])
    assert shown.name.endswith("-sweep.html")
    assert shown.read_text().count("<svg") == 3
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())


def test_a_job_that_fails_costs_itself_alone(swept, tmp_path):
    status, lines, errors = swept("bild.rollback=0.5,-1,4", "seed=0,1")
    assert status == 2
    assert names(tmp_path) == ["0.5", "0.5", "4", "4"]
    assert sum("large alone" in line for line in lines) == 2
    assert Path(lines[-1]).exists()
    assert [line.partition(" must")[0] for line in errors[:2]] == [
        f"error: job bild.rollback=-1 seed={seed}: bild: rollback=-1" for seed in (0, 1)
    ]
    assert errors[2:] == ["error: 2 of 6 jobs of this sweep failed, as told above; mend and run those again"]


def test_the_models_are_named_though_the_first_job_fails(swept):
    _, lines, _ = swept("bild.rollback=-1,0.5")
    assert sum(line.startswith(("task ", "large  ", "small  ")) for line in lines) == 3


def test_a_sweep_of_failures_prints_no_table(swept, tmp_path):
    status, lines, errors = swept("batch_size=0,-1")
    assert (status, lines, len(errors)) == (2, [], 3)
    assert not (tmp_path / "results" / "made").exists()


def test_a_missing_value_fails_its_job_alone(swept, overrides, tmp_path):
    status, _, errors = swept("task.data_files.test=${required:data,x},nowhere.jsonl", "bild.rollback=1")
    assert status == 2
    assert "task.data_files.test is not set: give data, such as task.data_files.test=x" in errors[0]
    assert errors[1].startswith("error: job task.data_files.test=nowhere.jsonl: ")


def test_an_interrupted_sweep_goes_on(swept, tmp_path, monkeypatch):
    real, timed = latency._time, []

    def counting(*arguments):
        timed.append(arguments[2])
        return real(*arguments)

    def interrupted(*arguments):
        # The first job takes 6, the second is stopped in its second row.
        if len(timed) == 10:
            raise KeyboardInterrupt
        return counting(*arguments)

    monkeypatch.setattr(latency, "_time", interrupted)
    status, lines, _ = swept("bild.rollback=0.5,4")
    assert status == 130
    assert lines[-1].startswith("stopped; texts and timings stay in ")
    assert names(tmp_path) == ["0.5"]
    assert not any("large alone" in line for line in lines)
    timed.clear()
    monkeypatch.setattr(latency, "_time", counting)
    status, lines, _ = swept("bild.rollback=0.5,4")
    assert status == 0
    assert len(timed) == 3
    assert names(tmp_path) == ["0.5", "4"]
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())


def test_a_defect_of_the_report_is_no_warning(swept, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(report, "write_report", broken)
    status, _, errors = swept("bild.rollback=0.5")
    assert (status, errors) == (1, [])


def test_jobs_that_mean_the_same_are_one_line_of_the_table(swept, tmp_path):
    status, lines, _ = swept("bild.rollback=2,2.0")
    assert status == 0
    assert names(tmp_path) == ["2"]
    assert sum(line.strip().startswith("BigLittle") for line in lines) == 2


def test_two_sweeps_of_one_second_have_folders_of_their_own():
    one, two = (composed("evaluate", hydra=True).hydra.sweep for _ in range(2))
    assert one.dir == one.dir
    assert one.dir != two.dir


def test_an_outcome_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    here = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path / "0")))
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: here)
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.files.sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            sweep._leave({"result": None})
    assert not list((tmp_path / "0").iterdir())
    sweep._leave({"result": None})
    assert json.loads((tmp_path / "0" / sweep.OUTCOME).read_text()) == {"result": None}
