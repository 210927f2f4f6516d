"""What every pipeline says in the same words, and its answers to mistakes: what, where, and what was probably meant."""

import io
import logging
import subprocess
import sys

import pytest
import torch
from hydra.errors import InstantiationException

from pipelines import cli, readme
from pipelines.cli import UserError, check_whole, counted
from tests.conf import ROOT, composed


@pytest.fixture(autouse=True)
def open_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra sets logging up anew for every job; a handler of absl then closes the file in which pytest keeps output."""
    monkeypatch.setattr(logging, "shutdown", lambda handlers: None)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Type a command whose pipeline resolves every key; returns standard error of a refusal."""

    def typed(command: str, main=lambda config: cli.OmegaConf.to_container(config, resolve=True)) -> str:
        name, *overrides = command.split()
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *overrides])
        with pytest.raises(SystemExit) as exit:
            cli.entry(name, main)
        assert exit.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        return told.removeprefix("error: ").strip()

    return typed


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "finetune train.lerning_rate=1",
            "train.lerning_rate: there is no such key here; did you mean train.learn",
        ),
        ("finetune max_steps=4", "max_steps: there is no such key here; did you mean train.max_steps or "),
        ("finetune modle=tiny-small", "modle: there is no such key here; did you mean model?"),
        ("finetune small=tiny-small", "small: there is no such key here; --cfg job shows all of them"),
        ("evaluate bild=large_only bild.fallback=1", "bild.fallback: there is no such key here; --cfg job"),
        ("finetune large=a small=b", "large: there is no such key here"),
        (
            "evaluate task.data_files={tset:x}",
            "task.data_files.tset: there is no such key here; did you mean task.data",
        ),
        ("finetune model=tiny-smal", "model=tiny-smal: there is no such choice; did you mean tiny-small"),
        ("evaluate bild=bert", "bild=bert: there is no such choice; choose one of big_little, "),
        ("evaluate seed=1 bild=null", "bild=null: must name a choice; choose one of big_little, "),
        (
            "finetune experiment=finetune_gird",
            "experiment=finetune_gird: there is no such choice; did you mean fine",
        ),
        ("finetune experiment=xsum-aligned", "experiment=xsum-aligned: is for another pipeline; it sets large, which"),
        ("finetune train.max_steps", "train.max_steps: cannot be read; write key=value"),
        ("finetune task.data_files={a", "task.data_files={a: cannot be read; write key=value"),
        ("finetune seed=1,2", "seed=1,2: more than one value; add -m to run them one after the other"),
        ("finetune model=path", "model.path is not set: give a folder or a hub id, such as model.path=google/"),
        ("evaluate large=path", "large.path is not set: give a folder or a hub id, such as large.path=google/"),
        ("align small=path", "small.path is not set: give a folder"),
        ("export to=x", "from is not set: give a finished checkpoint, such as from=checkpoints/"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(command: str, told: str, answer) -> None:
    assert answer(command).startswith(told)


@pytest.mark.parametrize("option", ["--config-dir ", "--config-dir=", "-cd "])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("finetune {} task=mine modle=tiny-large", "modle: there is no such key here; did you mean model?"),
        ("finetune {} task=mine task.knob=1 task.nkob=2", "task.nkob: there is no such key here; did you mean task.kn"),
        ("evaluate {} task=mine bild=null", "bild=null: must name a choice; choose one of big_little, "),
        ("evaluate {} task=null", "task=null: must name a choice; choose one of cnn_dailymail, dialogsum, doc"),
    ],
)
def test_choices_in_a_folder_of_one_s_own_are_known(words: str, told: str, option: str, answer, tmp_path) -> None:
    (tmp_path / "task").mkdir()
    text = (cli.CONF / "task/xsum.yaml").read_text(encoding="utf-8")
    (tmp_path / "task/mine.yaml").write_text(f"{text}\nknob: 0\n", encoding="utf-8")
    line = answer(words.format(f"{option}{tmp_path}"))
    assert line.startswith(told)
    assert ("mine" in line) == ("task=null" in words)


def test_readme_refuses_arguments(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["readme", "some argument", "x"])
    with pytest.raises(SystemExit) as exit:
        readme.main()
    assert exit.value.code == 2
    told = "readme takes no arguments; which files it shows stands in README.md"
    assert capsys.readouterr().err == f"error: 'some argument' x: {told}\n"


def test_a_path_that_is_null_is_left_to_whoever_loads_it() -> None:
    config = composed("evaluate", "large=path", "large.path=null")
    assert (config.large.name, config.large.path) == ("None", None)


def test_what_the_pipeline_refuses_is_one_line(answer) -> None:
    def main(config):
        raise UserError("limit=0: needs\nat least 1")

    assert answer("finetune", main) == "limit=0: needs at least 1"


def test_a_disk_that_refuses_is_one_line_and_a_defect_is_not(answer, tmp_path) -> None:
    def main(config):
        (tmp_path / "missing" / "file").write_text("x")

    assert answer("finetune", main) == (
        f"{tmp_path}/missing/file: No such file or directory; choose another path, or mend its permissions"
    )

    def write(config):
        with open("/dev/full", "w") as file:
            file.write("x")

    assert answer("finetune", write) == (
        "No space left on device; make room on the disk, and run the same command again"
    )

    for defect in (ZeroDivisionError, OSError, InstantiationException):

        def fail(config, defect=defect):
            raise defect("broken")

        with pytest.raises(defect):
            answer("finetune", fail)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_too_little_memory_is_one_line(error, answer) -> None:
    def fail(config):
        raise error

    told = answer("finetune", fail)
    assert told.startswith("out of memory (")
    assert "; lower batch_size" in told


@pytest.mark.parametrize(("terminal", "loaded", "told"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_terminal_is_told_what_the_first_seconds_are_for(terminal, loaded, told, monkeypatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "argv", ["finetune.py"])
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    cli.entry("finetune", lambda config: None)
    assert stderr.getvalue() == "loading libraries ...\n" * told


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows"), (1000, "1,000 rows")]
)
def test_one_is_singular_and_thousands_are_set_apart(number, words):
    assert counted(number, "row") == words


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_what_is_no_whole_number_is_refused_by_its_key(value):
    with pytest.raises(UserError, match=f"^limit={value}: must be a whole number of at least 1$"):
        check_whole("limit", value)
    with pytest.raises(UserError, match=r"^limit=0: must be .* at least 1, or null for all rows$"):
        check_whole("limit", 0, null="all rows")


def test_whole_numbers_and_null_where_it_means_something_pass():
    check_whole("limit", 1)
    check_whole("seed", 0, least=0)
    check_whole("limit", None, null="all rows")


def test_of_several_processes_the_first_tells_what_all_have_met():
    """Two real ones; a launcher that loses one ends the other."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    done = subprocess.run(
        [*launch, "-m", "pipelines.export", "to=x"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert done.stderr.count("error: from is not set: give a finished checkpoint") == 1
    assert "exitcode  : 2 " in done.stderr


@pytest.mark.parametrize(("rank", "waits"), [(None, 0), ("0", 0), ("1", 1)])
def test_what_one_process_alone_has_met_is_told_all_the_same(rank, waits, answer, monkeypatch):
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    slept = []
    monkeypatch.setattr(cli.time, "sleep", slept.append)
    assert answer("finetune modle=x").startswith("modle: there is no such key here")
    assert slept == [cli.GRACE] * waits
