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
from hydra import compose, initialize_config_dir
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from pipelines import finetune
from pipelines.cli import CONF
from pipelines.models import manifest
from pipelines.training import checkpoints
from tests.training import tiny

ROOT = CONF.parent


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
    ]


def command(overrides: list[str], out: Path) -> dict:
    words = [sys.executable, "-m", "pipelines.finetune", *overrides, f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {"args": words, "cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


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

    with initialize_config_dir(str(CONF), version_base=None):
        finetune.main(compose("finetune", [*overrides, f"out={whole}"]))
    for part in ("", "checkpoint-12"):
        assert tiny.weights(killed / part) == tiny.weights(whole / part)


def test_what_it_leaves_behind(overrides, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    with initialize_config_dir(str(CONF), version_base=None):
        finetune.main(compose("finetune", [*overrides, f"out={out}", "train.log_every=6"]))
    printed = capsys.readouterr().out
    assert "tiny-small: new weights (seed 0), vocabulary of " in printed
    assert "step 6/12  loss " in printed
    assert f"model        {out}" in printed

    assert manifest.is_complete(out)
    sealed = set(manifest.read(out)["files"])
    kept = {"config.json", "generation_config.json", "model.safetensors", "README.md", "finetune.yaml"}
    assert kept | {"tokenizer.json", "tokenizer_config.json", "trainer_state.json"} == sealed
    others = {path.name for path in out.iterdir()} - sealed - {"checkpoint-6"}  # which may be the best one
    assert others == {"manifest.json", "checkpoint-10", "checkpoint-12"}
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
