"""Lines in, lines out: nothing lost, nothing added, nothing done twice."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import bild
import pipelines.models.loading
from pipelines import generate
from pipelines.cli import CONF, UserError
from pipelines.decoding import decode
from pipelines.decoding.lines import LineDecoder
from tests.evaluation.conftest import SOURCES

ROOT = Path(__file__).resolve().parents[2]
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


def piped(data: bytes) -> io.TextIOWrapper:
    """Standard input as Python makes it where the terminal's language is plain C."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="ascii", errors="surrogateescape")


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
    monkeypatch.setattr(sys, "stdin", piped("\n".join(LINES).encode()))
    generated(*overrides, "input=-", "output=-")
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", piped("\n".join(LINES).encode()))
    generated(*overrides, "input=-", f"output={tmp_path / 'piped.txt'}")
    assert (tmp_path / "piped.txt").read_text() == expected


def test_sampling_is_the_same_through_pipes_and_files(overrides, source, tmp_path, capsys):
    drawn = [*overrides, "do_sample=true", "seed=5"]
    generated(*drawn, f"input={source}", f"output={tmp_path / 'out.txt'}")
    generated(*drawn, f"input={source}", "output=-", "batch_size=3")
    assert capsys.readouterr().out == (tmp_path / "out.txt").read_text()


def test_a_killed_run_goes_on(overrides, source, tmp_path, monkeypatch, capsys):
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
    assert f"stopped; finished lines stay in {out}.partial, and the same command" in capsys.readouterr().err
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

    monkeypatch.setattr(generate, "write_text", killed)
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


@pytest.mark.parametrize(("place", "told"), [(-2, "1 line"), (0, "3 lines")])
def test_long_lines_are_announced_and_those_that_just_fit_are_not(
    overrides, source, tokenizer, place, told, tmp_path, capsys
):
    lengths = sorted(len(ids) for ids in tokenizer([line for line in LINES if line.strip()])["input_ids"])
    limit = lengths[place]
    assert sum(length > limit for length in lengths) == int(told[0])
    generated(*overrides, f"task.source_length={limit}", f"input={source}", f"output={tmp_path / 'out.txt'}")
    assert f"\n{told} longer than {limit} tokens, cut there (task.source_length)\n" in capsys.readouterr().err


def test_what_is_read_and_written_is_utf8_whatever_the_language(overrides, pair_folder):
    """Bytes that are not UTF-8 are one line, also where Python lets them through as text."""
    command = [sys.executable, "-m", "pipelines.generate", *overrides, "input=-", "output=-"]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    data = f"{SOURCES[0]}\n{SOURCES[0]} äöü ☃\ncaf".encode() + b"\xe9\n"
    done = subprocess.run(command, cwd=ROOT, input=data, capture_output=True, timeout=600, env=plain)
    assert done.returncode == 2
    assert done.stdout.count(b"\n") == 2, "the lines before it"
    done.stdout.decode()
    *_, last = done.stderr.decode().splitlines()
    assert last == "error: input=-: line 3 is not UTF-8 (unexpected end of data); convert the file first"


def test_what_models_write_is_put_out_as_utf8(overrides, source, monkeypatch):
    monkeypatch.setattr(LineDecoder, "decode", lambda self, lines: ["ä☃"] * len(lines))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    generated(*overrides, f"input={source}", "output=-")
    assert written.getvalue().decode() == "ä☃\n" * len(LINES)


def test_the_pipe_of_another_program_is_read_as_a_file_is(overrides, source, tmp_path):
    generated(*overrides, f"input={source}", f"output={tmp_path / 'out.txt'}")
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", source, tmp_path / "pipe"]):
        generated(*overrides, f"input={tmp_path / 'pipe'}", f"output={tmp_path / 'piped.txt'}")
    assert (tmp_path / "piped.txt").read_text() == (tmp_path / "out.txt").read_text()


def test_a_mark_at_the_beginning_of_a_file_is_no_text(overrides, tmp_path):
    for name, start in (("plain", b""), ("marked", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(start + LINES[0].encode())
        generated(*overrides, f"input={tmp_path / name}", f"output={tmp_path / name}.out")
    assert (tmp_path / "plain.out").read_text() == (tmp_path / "marked.out").read_text()


def test_two_runs_at_once_to_one_file_are_refused(overrides, source, tmp_path, monkeypatch):
    out = tmp_path / "out.txt"
    real, second = LineDecoder.decode_all, []

    def meanwhile(self, *arguments):
        command = [sys.executable, "-m", "pipelines.generate", *overrides, f"input={source}", f"output={out}"]
        second.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600))
        return real(self, *arguments)

    monkeypatch.setattr(LineDecoder, "decode_all", meanwhile)
    generated(*overrides, f"input={source}", f"output={out}")
    [refused] = second
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"error: {out}.partial: another run is writing there now")
    assert len(out.read_text().splitlines()) == len(LINES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give input=FILE output=FILE"),
        (["input=nowhere.txt", "output=-"], "input=nowhere.txt: there is no such file"),
        (["input={folder}", "output=-"], "is a folder; give a file, or - for standard input"),
        (["input={source}", "output={source}"], "is the input itself"),
        (["input={source}", "output=/nowhere/out.txt"], "the folder /nowhere does not exist"),
        (["input={source}", "output={folder}"], "is a folder"),
        (["input={source}", "output=/dev/null"], "output=/dev/null: is not a plain file; give a file, or - for"),
        (["input={source}", "output=/proc/out.txt"], "output=/proc/out.txt: nothing can be written to /proc ("),
        (["input=-", "output=/proc/out.txt"], "output=/proc/out.txt: nothing can be written to /proc ("),
        (["input={source}", "output=-", "batch_size=0"], "batch_size=0"),
        (["input={source}", "output=-", "bild.rollback=-1"], "bild: rollback=-1"),
        (["input={binary}", "output={folder}/x"], "line 1 is not UTF-8"),
        (["input={empty}", "output={folder}/x"], "is empty"),
    ],
)
def test_mistakes_are_one_line_before_any_model_loads(overrides, source, tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr(pipelines.models.loading, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"caf\xe9\n")
    empty.write_bytes(b"")
    names = {"source": source, "folder": tmp_path, "binary": binary, "empty": empty}
    with pytest.raises(UserError) as error:
        generated(*overrides, *(argument.format(**names) for argument in arguments))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.partial").exists()
