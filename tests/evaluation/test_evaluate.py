"""The command as a user runs it, on a tiny random pair: what it prints, writes, keeps and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

import bild
from pipelines import evaluate
from pipelines.cli import CONF, UserError
from pipelines.evaluation import command, latency, provenance, results, timings
from tests.commits import LATER, committed_during

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def evaluated(*overrides: str, name: str = "evaluate") -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(name, list(overrides))
    evaluate.main(config)


def test_it_prints_the_table_and_ends_with_the_report(overrides, tmp_path, monkeypatch, capsys):
    committed_during(monkeypatch, latency, "measure")
    evaluated(*overrides)
    lines = capsys.readouterr().out.splitlines()
    report = Path(lines[-1])
    assert report.suffix == ".html"
    assert report.exists()
    for column in ("BLEU", "tokens/s", "speedup", "large share", "same as large", "accepted", "rollbacks"):
        assert any(column in line for line in lines)
    for method in ("large alone", "small alone", "BigLittle"):
        assert sum(method in line for line in lines) >= 2
    result = json.loads(report.with_suffix(".json").read_text())
    assert result["task"]["examples"] == 6
    assert result["run"]["timed_examples"] == 2
    assert [entry["method"] for entry in result["methods"]] == ["large", "small", "policy"]
    assert result["methods"][0]["rates"]["exact_match_with_large"] == 1
    assert result["methods"][0]["latency"]["speedup"] == {"value": 1, "low": 1, "high": 1}
    assert all(entry["latency"]["unlike_batched"] == 0 for entry in result["methods"])
    assert result["provenance"]["config"]["bild"]["fallback"] == 0.1
    assert result["provenance"]["git"] != LATER, "it is not the code that ran"
    assert pq.read_metadata(report.with_suffix(".parquet")).num_rows == 18
    assert not list((tmp_path / "results").rglob("*.tmp"))
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())
    assert result["run"]["timing_processes"] == 1


def test_texts_are_written_once_and_times_measured_anew(overrides, monkeypatch):
    evaluated(*overrides)
    batches = []
    real = bild.generate
    monkeypatch.setattr(bild, "generate", lambda *a, **k: batches.append((k["policy"], len(a[2]))) or real(*a, **k))
    evaluated(*overrides)
    assert {size for _, size in batches} == {1}
    batches.clear()
    evaluated(*overrides, "bild.rollback=0.5")
    assert {policy for policy, size in batches if size > 1} == {bild.BigLittle(fallback=0.1, rollback=0.5)}


class Killed(BaseException):
    """A run that ends in the middle."""


def test_a_killed_run_goes_on(overrides, monkeypatch, tmp_path):
    real = latency._time
    timed = []

    def counting(decoder, policy, name, inputs, row, *others):
        timed.append((row, name))
        return real(decoder, policy, name, inputs, row, *others)

    def dying(*arguments):
        if len(timed) == 4:
            raise Killed
        return counting(*arguments)

    monkeypatch.setattr(latency, "_time", dying)
    with pytest.raises(Killed):
        evaluated(*overrides)
    assert not (tmp_path / "results" / "made").exists()
    finished = {row for row, _ in timed[:3]}
    timed.clear()
    monkeypatch.setattr(latency, "_time", counting)
    evaluated(*overrides)
    assert len(timed) == 3
    assert {row for row, _ in timed}.isdisjoint(finished)
    [result] = (tmp_path / "results" / "made").glob("*.json")
    content = json.loads(result.read_text())
    assert content["methods"][0]["latency"]["examples"] == 2
    assert content["run"]["timing_processes"] == 1


def killed_after_timing(overrides, monkeypatch, tmp_path) -> Path:
    """A run that was killed just before it wrote its result; returns its log."""
    with monkeypatch.context() as patched:

        def dying(*_, **__):
            raise Killed

        patched.setattr(results, "rows_table", dying)
        with pytest.raises(Killed):
            evaluated(*overrides)
    [log] = (tmp_path / "results" / "cache" / "timing").glob("*/*.jsonl")
    return log


def timed_calls(monkeypatch) -> list[str]:
    """Names of the methods that are timed from now on."""
    real, called = latency._time, []
    monkeypatch.setattr(latency, "_time", lambda *a: called.append(a[2]) or real(*a))
    return called


def test_a_result_tells_that_two_processes_measured_it(overrides, monkeypatch, tmp_path):
    log = killed_after_timing(overrides, monkeypatch, tmp_path)
    first, _ = log.read_text().splitlines()
    log.write_text(first.replace(timings.PROCESS, "another") + "\n")
    assert len(timed_calls(monkeypatch)) == 0
    evaluated(*overrides)
    [result] = (tmp_path / "results" / "made").glob("*.json")
    assert json.loads(result.read_text())["run"]["timing_processes"] == 2


@pytest.mark.parametrize(
    ("change", "timed"), [({}, 0), ({"processor": "Abacus 9000"}, 6), ({"threads": 64}, 6), ({"accelerator": "GPU"}, 6)]
)
def test_times_of_another_machine_are_not_taken_up(overrides, change, timed, monkeypatch, tmp_path):
    killed_after_timing(overrides, monkeypatch, tmp_path)
    there = {**provenance.machine(), **change}
    monkeypatch.setattr(provenance, "machine", lambda: there)
    called = timed_calls(monkeypatch)
    evaluated(*overrides)
    assert len(called) == timed


def test_the_same_run_twice_at_once_is_refused(overrides, monkeypatch, tmp_path):
    """Once the first measures, the second is told so; files that only one of them may write stay whole."""
    command = [sys.executable, "-m", "pipelines.evaluate", *overrides]
    real, second = latency.measure, []

    def meanwhile(*arguments):
        second.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=ENVIRONMENT))
        return real(*arguments)

    monkeypatch.setattr(latency, "measure", meanwhile)
    # The key holds the number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        evaluated(*overrides)
    finally:
        torch.set_num_threads(threads)
    [refused] = second
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert "another run is writing there now" in refused.stderr.splitlines()[-1]
    assert len(list((tmp_path / "results" / "made").glob("*.json"))) == 1


@pytest.fixture
def typed(monkeypatch):
    """Sets the overrides of a command line for ``command.extras``."""

    def words(*overrides: str) -> None:
        config = SimpleNamespace(overrides=SimpleNamespace(task=list(overrides)))
        monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
        monkeypatch.setattr(HydraConfig, "get", lambda: config)

    return words


def test_a_name_tells_whatever_was_set(typed):
    typed("task.source_length=64", "large.aligned=true", "+experiment=fast", "seed=3", "limit=9")
    assert command.extras("cpu", {}) == {
        "task.source_length": "64",
        "large.aligned": "true",
        "experiment": "fast",
        "seed": "3",
        "limit": "9",
    }


def test_a_name_tells_nothing_twice(typed):
    typed("split=test", "task=xsum", "task.name=mine", "large=t5-large", "small=t5-small", "bild=big_little")
    assert command.extras("cpu", {}) == {}
    typed("bild.fallback=0.5", "device=cuda", "out=elsewhere")
    assert command.extras("cuda", {}) == {"": "cuda"}


def test_a_name_tells_paths_by_what_lies_there(typed):
    contents = {
        "task.data_files": "abcdef0123456789",
        "large.path": "1111111122222222",
        "small.path": "3333333344444444",
    }
    typed("task.data_files.test=/long/path/a.jsonl", "small.path=runs/7/tiny")
    assert command.extras("cpu", contents) == {"task.data_files": "abcdef01", "small.path": "33333333"}


def test_a_baseline_as_policy_is_not_run_twice(overrides, tmp_path):
    evaluated(*(override for override in overrides if "bild" not in override), "bild=large_only")
    [path] = (tmp_path / "results" / "made").glob("*.json")
    result = json.loads(path.read_text())
    assert [entry["method"] for entry in result["methods"]] == ["large", "small"]
    assert result["run"]["policy_method"] == "large"


def test_summaries_are_scored_with_rouge(overrides, capsys):
    evaluated(*overrides, "task.metric=rouge", "limit=4")
    assert "ROUGE-Lsum" in capsys.readouterr().out


def test_sampling_is_repeatable(overrides, tmp_path):
    evaluated(*overrides, "do_sample=true", "temperature=0.8", "top_k=20", "top_p=0.9", "seed=1")
    [path] = (tmp_path / "results" / "made").glob("*.parquet")
    first = [row["text"] for row in pq.read_table(path).to_pylist()]
    evaluated(*overrides, "do_sample=true", "temperature=0.8", "top_k=20", "top_p=0.9", "seed=1", "batch_size=3")
    assert [row["text"] for row in pq.read_table(path).to_pylist()] == first
    result = json.loads(path.with_suffix(".json").read_text())
    assert all(entry["latency"]["unlike_batched"] == 0 for entry in result["methods"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split=tset", "there is no split 'tset'; choose one of train, validation, test"),
        ("limit=0", "limit=0: must be a whole number of at least 1"),
        ("latency_limit=-1", "latency_limit=-1: must be"),
        ("batch_size=0", "batch_size=0: must be"),
        ("batch_size=null", "batch_size=None: must be"),
        ("task.metric=meteor", "task.metric=meteor: choose one of bleu, rouge, rouge2, exact_match, f1, number"),
        ("task.data_files.test=nowhere.jsonl", "nowhere.jsonl"),
        ("bild.fallback=nan", "bild: fallback=nan must be"),
        ("bild.draft_length=0", "bild: draft_length=0 must be"),
        ("bild.fallback=much", "bild.fallback=much: must be a number"),
        ("bild.rollback=null", "bild.rollback=None: must be a number"),
        ("bild.verify_eos=maybe", "bild.verify_eos=maybe: must be true or false"),
        ("temperature=hot", "temperature=hot: must be a number"),
        ("top_p=true", "top_p=True: must be a number"),
        ("do_sample=1", "do_sample=1: must be true or false"),
        ("task.prefix=7", "task.prefix=7: must be text; quote a number twice"),
        ("max_new_tokens=0", "max_new_tokens=0: must be"),
        ("top_p=2", "top_p=2 must be in"),
        ("temperature=2", "temperature=2: texts are greedy, so it does nothing; add do_sample=true, or drop it"),
        ("top_k=5", "top_k=5: texts are greedy"),
        ("device=abacus", "device=abacus"),
        ("device=null", "device=None: is not a device"),
        ("out=", "out=: give a folder"),
        ("out=null", "out=None: give a folder"),
        ("task.data_files=null", "task.data_files=None: give a file for each split, such as {test: FILE}"),
        ("task.data_files.test=3", "task.data_files.test=3: give a file, or null for none"),
        ("dtype=float16", "dtype=float16: choose one of float32"),
    ],
)
def test_mistakes_are_one_line_before_any_model_loads(overrides, override, message, monkeypatch):
    import pipelines.models.loading

    monkeypatch.setattr(pipelines.models.loading, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(UserError) as error:
        evaluated(*overrides, override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pair_must_share_a_tokenizer(overrides, models, tmp_path):
    from pipelines.data.vocabulary import train_tokenizer

    models["small"].save_pretrained(tmp_path / "other")
    train_tokenizer(["ganz anderer Text, xyz"], 310).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"large \(.*large\) and small \(.*other\) have different tokenizers"):
        evaluated(*overrides, f"small.path={tmp_path / 'other'}")


def test_a_misspelt_key_is_one_line_and_status_2(overrides):
    command = [sys.executable, "-m", "pipelines.evaluate", *overrides, "latency_limits=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "latency_limits" in done.stderr
