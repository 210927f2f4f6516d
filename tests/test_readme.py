"""What the README shows works: short commands run verbatim, marked ones compose, tables come from results."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from benchmarks import inflated
from benchmarks.options import parser, rounding_parser
from benchmarks.shapes import parse_shape
from pipelines.readme import alignment_table, methods_table, with_tables
from tests.conf import ROOT, composed

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
# A command with one of these after a # takes longer than a test may, or needs what a test may not have.
MARKS = ("seconds", "minute", "network", "after ")


def blocks(language: str) -> list[str]:
    return [block for found, block in re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL) if found == language]


def commands() -> list[str]:
    lines = [
        line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if "pipelines." in line
    ]
    assert len(lines) > 10
    return lines


def is_marked(command: str) -> bool:
    return "#" in command and any(mark in command.split("#")[1] for mark in MARKS)


@pytest.mark.parametrize("command", [line for line in commands() if is_marked(line)])
def test_long_commands_compose(command: str) -> None:
    variables = dict(re.findall(r"^(\w+)='(.*)'$", "\n".join(blocks("bash")), re.MULTILINE))
    for name, value in variables.items():
        command = command.replace(f'"${name}"', shlex.quote(value))
    words = shlex.split(command, comments=True)
    place = words.index("-m") + 1
    root = words[place].removeprefix("pipelines.")
    assert "-m" not in words[place + 2 :], "argparse takes no override after -m when one stood before it"
    if root in ("report", "readme"):
        return
    overrides = [
        word.split(",")[0] if "=" in word and not set("{[") & set(word) else word
        for word in words[place + 1 :]
        if word != "-m"
    ]
    config = composed(root, *overrides)
    for node in ("task", "model", "large", "small", "bild", "train", "align"):
        if node in config:
            assert instantiate(config[node]) is not None


def systems() -> list[list[str]]:
    table = TEXT[TEXT.index("<!-- systems -->") : TEXT.index("<!-- end of systems -->")]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


@pytest.mark.parametrize("row", systems(), ids=lambda row: row[0])
def test_every_system_has_a_command_and_a_test(row: list[str]) -> None:
    name, paper, command, test = row
    assert name
    assert paper
    config = composed("evaluate", *command.strip("`").split())
    for node in ("large", "small", "bild"):
        assert instantiate(config[node]) is not None
    file, _, function = test.strip("`").partition("::")
    assert re.fullmatch(r"test_\w+", function), "name the test"
    assert f"\ndef {function}(" in (ROOT / file).read_text(encoding="utf-8")


def test_benchmark_commands_are_understood() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if "benchmarks." in line]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[:2] == ["python", "-m"]
        if words[2] == "benchmarks.inflated":
            assert parse_shape(inflated.parser().parse_args(words[3:]).shape)
            continue
        if words[2] == "benchmarks.rounding":
            assert rounding_parser().parse_args(words[3:]).data
            continue
        assert words[2] == "benchmarks.latency"
        options = parser().parse_args(words[3:])
        given = [vars(options)[name] for name in ("large", "small", "data") if name in options]
        assert len(given) == (0 if options.mode == "steps" else 3)
        own = ("checkpoints/multi30k/", "data/")  # what a user has made or fetched
        assert all((ROOT / path).exists() or path.startswith(own) for path in given)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a fresh clone has that commands need; nothing has run in it."""
    for folder in ("bild", "benchmarks", "conf", "pipelines", "checkpoints/pretrained"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("command", [line for line in commands() if not is_marked(line)])
def test_short_commands_run_verbatim_as_the_first_of_a_fresh_clone(command: str, clone: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(clone)}
    run = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    for file in re.findall(r"^result (.+)$", run.stdout, re.MULTILINE):
        assert json.loads((clone / file).read_text(encoding="utf-8"))["provenance"]["command"] in command


def test_each_of_the_users_commands_is_run() -> None:
    run = [line.split() for line in commands() if not is_marked(line)]
    assert {words[2].removeprefix("pipelines.") for words in run if words[0] == "python"} >= {
        "finetune",
        "align",
        "evaluate",
    }


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    once, many = blocks("python")
    scope: dict[str, Any] = {}
    exec(once, scope)
    assert scope["out"].sequences.dtype == torch.int64
    assert len(scope["out"].stats) == len(scope["out"].trace) == 2
    exec(many, scope)
    assert scope["index"] == 1
    assert len(scope["out"].trace) == 1


def test_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert with_tables(TEXT) == TEXT, "run `python -m pipelines.readme`"
    assert "<!-- results: " in TEXT


def test_a_figure_without_a_value_is_a_dash() -> None:
    nothing = {"value": None, "low": None, "high": None}
    figure = {"label": "acceptance", "before": None, "after": 0.5, "difference": nothing}
    assert alignment_table({"figures": {"acceptance": figure}}).endswith("| acceptance | – | 0.500 | – | – to – |\n")


def alignment(method: dict, after: float, low: float, high: float, **changes) -> dict:
    difference = {"value": after - 1, "low": low, "high": high}
    return {
        "name": "align",
        "task": {"name": "multi30k"},
        "models": {"large": "L", "before": "S"},
        "policy": {"name": "BigLittle", "fallback": 0.6, "rollback": 2.0, "rule": "paper"},
        "outputs": {"summary": {"outputs": 8000}},
        "method": method,
        "training": {"steps": 1000},
        "report": {"split": "validation", "examples": 500},
        "figures": {"alpha": {"label": "alpha", "before": 1.0, "after": after, "difference": difference}},
        "provenance": {"config": {"seed": 0}},
        **changes,
    }


JSD = {"method": "distill", "divergence": "jsd", "beta": 0.5, "distill_temperature": 1.0, "top_k": None}


def test_alignments_stand_side_by_side() -> None:
    sequence = alignment({"method": "sequence"}, 0.5, -0.6, -0.4)
    table = methods_table(
        [
            sequence,
            alignment(JSD | {"student_fraction": 0.5}, 2.0, 0.5, 1.5),
            alignment(JSD | {"top_k": 8, "student_fraction": 0.0}, 1.1, -0.1, 0.3),
        ]
    )
    assert table.splitlines()[:6] == [
        "| method | alpha |",
        "| --- | ---: |",
        "| before | 1.000 |",
        "| sequence | 0.500 ↓ |",
        "| distill, jsd(0.5), student 0.5 | 2.000 ↑ |",
        "| distill, jsd(0.5), top 8 | 1.100 |",
    ]
    assert "1,000 steps of alignment on 8,000 outputs, one run each, seed 0" in table
    other = alignment(JSD | {"student_fraction": 0.0}, 1.1, -0.1, 0.3, models={"large": "L", "before": "other"})
    with pytest.raises(ValueError, match="not all of these alignments compare the same models"):
        methods_table([sequence, other])


def test_every_path_in_the_tree_exists() -> None:
    (tree,) = [block for block in blocks("") if "pyproject.toml" in block]
    paths = [line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")]
    assert len(paths) >= 8
    for path in paths:
        assert (ROOT / path).exists(), path
