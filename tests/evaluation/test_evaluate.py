"""The command as a user runs it, on a tiny random pair: what it prints, writes, keeps and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

import bild
from pipelines import evaluate
from pipelines.cli import CONF, UserError
from pipelines.evaluation import latency
from tests.evaluation.conftest import SOURCES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def overrides(pair_folder, tmp_path) -> list[str]:
    """Command-line arguments for the random pair and six rows of text."""
    rows = [{"source": SOURCES[row], "target": SOURCES[row + 20]} for row in range(6)]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "task.name=made",
        f"task.data_files.test={data}",
        "task.target_length=5",
        *(f"{role}.path={pair_folder / role}" for role in ("large", "small")),
        f"out={tmp_path / 'results'}",
        "latency_limit=2",
        "batch_size=5",
        "bild.fallback=0.1",
    ]


def evaluated(*overrides: str, name: str = "evaluate") -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(name, list(overrides))
    evaluate.main(config)


def test_it_prints_the_table_and_ends_with_the_report(overrides, tmp_path, capsys):
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
    assert pq.read_metadata(report.with_suffix(".parquet")).num_rows == 18
    assert not list((tmp_path / "results").rglob("*.tmp"))
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())


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


def test_a_killed_run_goes_on(overrides, monkeypatch, tmp_path):
    class Killed(BaseException):
        pass

    real = latency._time
    timed = []

    def dying(decoder, policy, name, inputs, row, clock):
        if len(timed) == 4:
            raise Killed
        timed.append((row, name))
        return real(decoder, policy, name, inputs, row, clock)

    monkeypatch.setattr(latency, "_time", dying)
    with pytest.raises(Killed):
        evaluated(*overrides)
    assert not (tmp_path / "results" / "made").exists()
    finished = {row for row, _ in timed[:3]}
    timed.clear()
    monkeypatch.setattr(latency, "_time", lambda *a: timed.append((a[4], a[2])) or real(*a))
    evaluated(*overrides)
    assert len(timed) == 3
    assert {row for row, _ in timed}.isdisjoint(finished)
    [result] = (tmp_path / "results" / "made").glob("*.json")
    assert json.loads(result.read_text())["methods"][0]["latency"]["examples"] == 2


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
        ("task.metric=meteor", "task.metric=meteor: choose one of bleu, rouge"),
        ("task.data_files.test=nowhere.jsonl", "nowhere.jsonl"),
        ("bild.fallback=nan", "bild: fallback=nan must be"),
        ("bild.draft_length=0", "bild: draft_length=0 must be"),
        ("max_new_tokens=0", "max_new_tokens=0: must be"),
        ("top_p=2", "top_p=2 must be in"),
        ("device=abacus", "device=abacus"),
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
    with pytest.raises(UserError, match="large and small have different tokenizers"):
        evaluated(*overrides, f"small.path={tmp_path / 'other'}")


def test_a_sweep_ends_with_one_table_and_one_report(overrides, tmp_path):
    command = [sys.executable, "-m", "pipelines.evaluate", "-m", *overrides, "bild.rollback=0.5,4", "limit=4"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [path.stem for path in sorted((tmp_path / "results" / "made").glob("*.json"))]
    assert [name.partition("rollback")[2] for name in names] == [
        "0.5-latency_limit2-batch_size5-limit4",
        "4-latency_limit2-batch_size5-limit4",
    ]
    # Once in each of two tables.
    assert sum("large alone" in line for line in lines) == 2
    report = Path(lines[-1])
    assert report.name.endswith("-sweep.html")
    assert report.read_text().count("<svg") == 3
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())


def test_a_misspelt_key_is_one_line_and_status_2(overrides):
    command = [sys.executable, "-m", "pipelines.evaluate", *overrides, "latency_limits=3"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "latency_limits" in done.stderr
