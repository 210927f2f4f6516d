"""What conf/README.md shows works: a task of one's own, and Multi30k from the raw files of its repository."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from pipelines.cli import UserError
from pipelines.data.task import Task
from tests.conf import ROOT, composed

TEXT = (ROOT / "conf/README.md").read_text(encoding="utf-8")
RAW = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def multi30k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the snippet makes of two pairs a split."""
    raw = tmp_path / "dataset/data/task1/raw"
    raw.mkdir(parents=True)
    for split, name in RAW.items():
        for side in ("de", "en"):
            with gzip.open(raw / f"{name}.{side}.gz", "wt", encoding="utf-8", newline="") as file:
                file.write(f"{split} ä\u2028{side} \n  zwei\n")
    monkeypatch.chdir(tmp_path)
    exec(block("python"), {})
    return tmp_path / "data/multi30k"


@pytest.mark.parametrize("split", RAW)
def test_multi30k_is_made_of_its_raw_files(multi30k: Path, split: str) -> None:
    file = f"task.data_files.{split}={multi30k / split}.jsonl.gz"
    rows = instantiate(composed("finetune", "task=multi30k", file).task).load(split)
    assert list(rows["source"]) == [f"{split} ä\u2028de", "zwei"]
    assert list(rows["target"]) == [f"{split} ä\u2028en", "zwei"]


def test_a_task_of_one_s_own_composes_from_a_folder(tmp_path: Path, multi30k: Path) -> None:
    (tmp_path / "my_conf/task").mkdir(parents=True)
    (tmp_path / "my_conf/task/mine.yaml").write_text(block("yaml"), encoding="utf-8")
    multi30k.rename(tmp_path / "data/mine")
    for file in (tmp_path / "data/mine").glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    words = ["--config-dir", "my_conf", "task=mine", "model=tiny-large"]
    assert f"python -m pipelines.finetune {' '.join(words)}\n" in TEXT
    run = subprocess.run(
        [sys.executable, "-m", "pipelines.finetune", *words, "--cfg", "job"],
        env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    config = OmegaConf.create(run.stdout)
    task = instantiate(config.task)
    assert config.out == "checkpoints/mine/tiny-large"
    assert [len(task.load(split)) for split in RAW] == [2, 2, 2]
    assert task.load("test")["source"][1] == "zwei"


def test_a_task_without_data_says_what_to_give() -> None:
    task = Task(name="mine", version=1, metric="bleu", source_length=8, target_length=8)
    with pytest.raises(UserError, match=r"^task=mine: has neither files .* give task\.data_files\.test=FILE"):
        task.load("test")


def test_weights_elsewhere_are_named_by_their_path() -> None:
    commands = [line for line in TEXT.splitlines() if line.startswith("python -m pipelines.generate")]
    for command in commands:
        words = command.split()[3:]
        model = instantiate(composed("generate", *words).small)
        assert (model.name, model.path) == ("distilled", "checkpoints/toy_de_en/distilled")
    assert commands
