"""The command itself, as a user types it, killed and typed again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import bild
from pipelines import finetune
from pipelines.cli import UserError
from pipelines.decoding.config import instantiated
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import load_pair
from pipelines.files import sole_writer
from pipelines.models import manifest
from pipelines.models.fingerprint import model_hash
from pipelines.models.loading import Model, choose_checkpoint
from pipelines.training import checkpoints, run
from tests.commits import LATER, committed_during
from tests.conf import ROOT, composed
from tests.training import tiny


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small task in local files and a model to fit, trained for 12 steps."""
    folder = tmp_path_factory.mktemp("data")
    for split, rows in (("train", tiny.pairs(44)), ("validation", tiny.pairs(4))):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    files = f"{{train: {folder}/train.jsonl, validation: {folder}/validation.jsonl}}"
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    return [
        "model=tiny-small",
        "model.init=scratch",
        "model.vocabulary_size=300",
        *(f"model.architecture.{name}={value}" for name, value in shape.items()),
        "task.target_length=12",
        f"task.data_files={files}",
        "train.max_steps=12",
        "train.save_every=2",
        "train.evaluate_every=6",
        "train.batch_size=4",
        "train.learning_rate=2e-3",
        "device=cpu",
        f"results={folder}/results",
    ]


def command(overrides: list[str], out: Path) -> dict:
    words = [sys.executable, "-m", "pipelines.finetune", *overrides, f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {"args": words, "cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def results_of(overrides: list[str]) -> Path:
    return Path(overrides[-1].removeprefix("results="))


def finetune_here(*overrides: str) -> None:
    """The command, in this process."""
    finetune.main(composed("finetune", *overrides))


def test_killed_and_typed_again(overrides, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(**command(overrides, killed)) as process:
        while process.poll() is None and not (killed / "checkpoint-4").is_dir():
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    reached = len(checkpoints.listed(killed))
    assert reached > 0

    done = subprocess.run(**command(overrides, killed), timeout=300, text=True)
    assert done.returncode == 0, done.stdout
    assert "finished: all 12 steps are done" in done.stdout
    assert "resumed from step " in done.stdout
    assert "Traceback" not in done.stdout

    finetune_here(*overrides, f"out={whole}")
    for part in ("", "checkpoint-12"):
        assert tiny.weights(killed / part) == tiny.weights(whole / part)


@pytest.mark.parametrize(
    ("out", "why"), [("file", "File exists"), ("file/run", "Not a directory"), ("run", "Is a dir")]
)
def test_a_folder_that_cannot_be_written_is_told_before_data_or_model_are_read(out, why, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run" / ".lock").mkdir(parents=True)  # nothing can be written under this name
    missing = "task.data_files={train: missing.jsonl, validation: missing.jsonl}"
    with pytest.raises(UserError, match=rf"{out}: nothing can be written there \({why}"):
        finetune_here(missing, "model.path=missing/model", f"out={tmp_path / out}")
    with pytest.raises(UserError, match=r"missing\.jsonl: no such file"):
        finetune_here(missing, "model.path=missing/model", f"out={tmp_path / 'other'}", f"results={tmp_path}")


@pytest.mark.parametrize("key", ["out", "results"])
@pytest.mark.parametrize("value", ["", "null", "1"])
def test_out_and_results_must_name_folders(key, value) -> None:
    with pytest.raises(UserError, match=rf"^{key}={value.replace('null', 'None')}: give a folder"):
        finetune_here(f"{key}={value}")


def test_too_few_rows_are_told_before_a_model_is_read(overrides, tmp_path: Path) -> None:
    words = ["model.init=pretrained", "model.path=missing/model", "train.batch_size=45", f"out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="44 rows to train on, too few for one batch"):
        finetune_here(*overrides, *words)


def test_a_quick_look_is_not_the_full_run(overrides, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'run'}"
    finetune_here(*overrides, out, "limit=30", "train.max_steps=1")
    with pytest.raises(UserError, match="holds another run: training rows is 30 there and 44 now; training data is "):
        finetune_here(*overrides, out)
    changed = ["limit=30", "model.architecture.d_ff=48", "model.vocabulary_size=310"]
    with pytest.raises(UserError, match=r"vocabulary_size is 300 there and 310 now; model\.architecture\.d_ff is 32 "):
        finetune_here(*overrides, out, *changed)
    assert choose_checkpoint(Model(name="run", path=None), tmp_path, "large")[1].endswith("(1 step, 30 rows)")


def test_the_second_of_two_is_refused_at_once(overrides, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with sole_writer(out):
        second = subprocess.run(**command(overrides, out), timeout=300, text=True)
    assert second.returncode == 2
    line = f"error: {out}: another run is writing there now; wait until it ends, or give this one a folder of its own"
    assert second.stdout.splitlines() == [line]
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_training_with_exits_leaves_what_its_lower_layers_may_draft(overrides, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    deep = ["model.architecture.num_decoder_layers=2", "train.exits={1: 1, 2: 1}"]
    finetune_here(*overrides, *deep, f"out={out}", "train.max_steps=1", "train.evaluate_every=1")
    tokenizer = AutoTokenizer.from_pretrained(out)
    rows = tokenizer(list(tiny.pairs(44)["target"]), max_length=12, truncation=True)["input_ids"]
    used = sorted({*tokenizer.all_special_ids, *(token for row in rows for token in row)})
    assert len(used) < len(tokenizer)
    told = f"{len(used)} tokens of {len(tokenizer)}"
    assert f"{out}/shortlist.json: {told}, for small.shortlist=true" in capsys.readouterr().out
    assert manifest.is_complete(out)

    words = ["large=path", f"large.path={out}", "small=early_exit", "device=cpu"]
    task = instantiated(composed("evaluate", *words), "task")
    pairs = {on: load_pair(composed("evaluate", *words, f"small.shortlist={on}"), task) for on in ("true", "false")}
    assert (pairs["true"].shortlist, pairs["false"].shortlist) == (tuple(used), None)
    assert pairs["true"].described["small"].weights != pairs["false"].described["small"].weights
    assert f"; drafts from {told} (shortlist.json)" in pairs["true"].described["small"].note
    [row] = pairs["true"].decoder(Decoding(max_new_tokens=8)).decode(bild.SmallOnly(), [[5, 6, 7, 1]], [0])
    assert set(row.tokens) <= set(used)


def test_what_it_leaves_behind(overrides, tmp_path: Path, monkeypatch, capsys) -> None:
    committed_during(monkeypatch, run, "train")
    out = tmp_path / "run"
    finetune_here(*overrides, f"out={out}", "train.log_every=6")
    printed = capsys.readouterr().out
    assert "tiny-small: new weights (seed 0), vocabulary of " in printed
    assert "step 6/12  loss " in printed
    assert f"model        {out}" in printed

    assert manifest.is_complete(out)
    sealed = set(manifest.read(out)["files"])
    kept = {"config.json", "generation_config.json", "model.safetensors", "README.md", "finetune.yaml"}
    assert kept | {"tokenizer.json", "tokenizer_config.json", "trainer_state.json"} == sealed
    others = {path.name for path in out.iterdir()} - sealed - {"checkpoint-6"}  # which may be the best one
    assert others == {".lock", "manifest.json", "checkpoint-10", "checkpoint-12"}
    result = json.loads((results_of(overrides) / "toy_de_en/finetune-run.json").read_text())
    training, trained = result["training"], result["models"]["trained"]
    assert (result["kind"], result["name"], result["task"]["examples"]) == ("training", "finetune-run", 44)
    ending = {"steps": 12, "max_steps": 12, "metric": "bleu", "ended": "complete", "resumed_from": None}
    assert ending.items() <= training.items()
    state = json.loads((out / "trainer_state.json").read_text())
    assert (training["best"], training["best_step"]) == (state["best_metric"], state["best_global_step"])
    assert trained["weights"] == model_hash(AutoModelForSeq2SeqLM.from_pretrained(out))
    assert trained["note"].startswith("tiny-small: new weights (seed 0)")
    assert result["provenance"]["config"]["train"]["max_steps"] == 12
    assert result["provenance"]["git"] != LATER, "it is not the code that ran"
    finetune_here(*overrides, f"out={out}")
    again = json.loads((results_of(overrides) / "toy_de_en/finetune-run.json").read_text())
    assert again["models"] == result["models"]
    of_this_start = {"seconds": again["training"]["seconds"], "ended": "before", "resumed_from": 12}
    assert again["training"] == training | of_this_start

    resolved = yaml.safe_load((out / "finetune.yaml").read_text())
    assert resolved["train"]["max_steps"] == 12
    assert "${" not in (out / "finetune.yaml").read_text()
    card = (out / "README.md").read_text()
    assert "toy_de_en (version" in card
    assert "| train.learning_rate | 0.002 |" in card

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.use_cache is True
    text = tiny.pairs(3)["source"][2]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
