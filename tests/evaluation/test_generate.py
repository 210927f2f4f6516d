"""Lines in, lines out: nothing lost, nothing added, nothing done twice."""

from __future__ import annotations

import io
import sys

import pytest
from hydra import compose, initialize_config_dir

import bild
from pipelines import generate
from pipelines.cli import CONF, UserError
from pipelines.decoding import decode
from tests.evaluation.conftest import SOURCES

LINES = [SOURCES[0], "", SOURCES[9], SOURCES[3] + " " + SOURCES[4], "   ", SOURCES[30]]


@pytest.fixture
def overrides(pair_folder) -> list[str]:
    paths = [f"{role}.path={pair_folder / role}" for role in ("large", "small")]
    return [*paths, "task.name=made", "task.target_length=6", "bild.fallback=0.1", "batch_size=2"]


def generated(*overrides: str) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("generate", list(overrides))
    generate.main(config)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes("\n".join(LINES).replace(LINES[0], LINES[0] + "\r").encode())
    return path


def test_a_line_for_every_line(overrides, source, tmp_path, capsys):
    generated(*overrides, f"input={source}", f"output={tmp_path / 'out.txt'}")
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert len(lines) == len(LINES) + 1
    assert [bool(line) for line in lines[:-1]] == [bool(line.strip()) for line in LINES]
    assert lines[-1] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]
    assert capsys.readouterr().out == ""


def test_pipes_and_files_write_the_same(overrides, source, tmp_path, capsys, monkeypatch):
    generated(*overrides, f"input={source}", f"output={tmp_path / 'out.txt'}")
    expected = (tmp_path / "out.txt").read_text()
    generated(*overrides, f"input={source}", "output=-")
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(LINES)))
    generated(*overrides, "input=-", "output=-")
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(LINES)))
    generated(*overrides, "input=-", f"output={tmp_path / 'piped.txt'}")
    assert (tmp_path / "piped.txt").read_text() == expected


def test_sampling_is_the_same_through_pipes_and_files(overrides, source, tmp_path, capsys):
    drawn = [*overrides, "do_sample=true", "seed=5"]
    generated(*drawn, f"input={source}", f"output={tmp_path / 'out.txt'}")
    generated(*drawn, f"input={source}", "output=-", "batch_size=3")
    assert capsys.readouterr().out == (tmp_path / "out.txt").read_text()


def test_a_killed_run_goes_on(overrides, source, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 2)
    real, calls = bild.generate, []

    def dying(*arguments, **keywords):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(arguments[2]))
        return real(*arguments, **keywords)

    out = tmp_path / "out.txt"
    monkeypatch.setattr(bild, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        generated(*overrides, f"input={source}", f"output={out}")
    assert not out.exists()
    calls.clear()
    monkeypatch.setattr(bild, "generate", lambda *a, **k: calls.append(len(a[2])) or real(*a, **k))
    generated(*overrides, f"input={source}", f"output={out}")
    assert calls == [2]
    fresh = tmp_path / "fresh.txt"
    generated(*overrides, f"input={source}", f"output={fresh}")
    assert fresh.read_text() == out.read_text()


def test_other_settings_do_not_take_up_a_killed_run(overrides, source, tmp_path, monkeypatch):
    real, calls = bild.generate, []

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.files.write_text", killed)
    monkeypatch.setattr(bild, "generate", lambda *a, **k: calls.append(len(a[2])) or real(*a, **k))
    for threshold, decoded in (("0.1", [2, 2]), ("0.1", []), ("0.8", [2, 2])):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            generated(*overrides, f"bild.fallback={threshold}", f"input={source}", f"output={tmp_path / 'out.txt'}")
        assert calls == decoded


def test_one_model_alone_needs_no_other(overrides, source, tmp_path):
    alone = [override for override in overrides if not override.startswith(("large", "bild"))]
    generated(*alone, "bild=small_only", "large.path=nowhere", f"input={source}", f"output={tmp_path / 'out.txt'}")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == len(LINES)


def test_long_lines_are_announced(overrides, source, capsys):
    generated(*overrides, "task.source_length=8", f"input={source}", "output=-")
    captured = capsys.readouterr()
    assert "were cut there (task.source_length)" in captured.err
    assert "cut there" not in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give input=FILE output=FILE"),
        (["input=nowhere.txt", "output=-"], "input=nowhere.txt: there is no such file"),
        (["input={source}", "output={source}"], "is the input itself"),
        (["input={source}", "output=/nowhere/out.txt"], "the folder /nowhere does not exist"),
        (["input={source}", "output={folder}"], "is a folder"),
        (["input={source}", "output=-", "batch_size=0"], "batch_size=0"),
        (["input={source}", "output=-", "bild.rollback=-1"], "bild: rollback=-1"),
        (["input={binary}", "output={folder}/x"], "is not UTF-8"),
        (["input={empty}", "output={folder}/x"], "is empty"),
    ],
)
def test_mistakes_are_one_line(overrides, source, tmp_path, arguments, message):
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"caf\xe9\n")
    empty.write_bytes(b"")
    names = {"source": source, "folder": tmp_path, "binary": binary, "empty": empty}
    with pytest.raises(UserError) as error:
        generated(*overrides, *(argument.format(**names) for argument in arguments))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
