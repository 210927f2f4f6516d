"""Every task and model that lie on the hub, read over HTTP by the unpatched code, and what is said when that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from pipelines.cli import CONF
from pipelines.data.hub import Hub
from pipelines.data.task import SPLITS
from tests.conf import composed
from tests.data.test_task import TASKS, task
from tests.hub import data, models
from tests.hub.asking import ask
from tests.hub.server import LocalHub

Parts = dict[str, tuple[str, range]]
WHOLE = {"train": ("train", range(6)), "validation": ("validation", range(4)), "test": ("test", range(4))}
FOUR = WHOLE | {"train": ("train", range(4))}


def cut(rows: int, test: str) -> Parts:
    """Without the last rows of train, which are validation."""
    return {"train": ("train", range(3)), "validation": ("train", range(3, rows)), "test": (test, range(4))}


def words(source: str, target: str) -> Callable[[str, int], list[str]]:
    return lambda split, row: [text.format(split=split, row=row) for text in (source, target)]


def passage(split: str, row: int) -> list[str]:
    answer = f"answer {split} {row}" if row % 2 else "unanswerable"
    return [f"context {split} {row} Question: question {split} {row}", answer]


# By task: its pairs, by the split and the row that they come from, and which of these its own splits are.
PAIRS: dict[str, tuple[Callable[[str, int], list[str]], Parts]] = {
    "iwslt2017": (words("de iwslt2017-de-en {split} {row}", "en iwslt2017-de-en {split} {row}"), FOUR),
    "wmt14": (words("de de-en {split} {row}", "en de-en {split} {row}"), WHOLE),
    "wmt14_en_de": (words("en de-en {split} {row}", "de de-en {split} {row}"), WHOLE),
    "wmt14_few_shot": (words("de de-en {split} {row}", "en de-en {split} {row}"), WHOLE),
    "xsum": (words("document {split} {row}", "summary {split} {row}"), WHOLE),
    "cnn_dailymail": (words("article 3.0.0 {split} {row}", "highlights 3.0.0 {split} {row}"), WHOLE),
    "multi30k": (words("de {split} {row}", "en {split} {row}"), FOUR),
    "dialogsum": (words('#Person1#: "dialogue", {split} {row}\n#Person2#: Yes.', "summary {split} {row}"), FOUR),
    "gsm8k": (words("question main {split} {row}", "1 + 1 = <<1+1=2>>2 #### {row}"), cut(503, "test")),
    "squad_v2": (passage, cut(2003, "validation")),
    "web_questions": (words("question {split} {row}", "answer {split} {row}\nb"), cut(503, "test")),
    "nq_open": (words("question {split} {row}", "answer {split} {row}\nb"), cut(2003, "validation")),
    "trivia_qa": (
        words("question rc.nocontext {split} {row}", "answer rc.nocontext {split} {row}\nb"),
        cut(2003, "validation"),
    ),
}
FILE = "data/train-00000-of-00001.parquet"
BAD_TASKS = {
    "task=xsum task.origin.path=nobody/nothing": r"nobody/nothing .*doesn't exist on the Hub or cannot be accessed",
    "task=xsum task.origin.revision=refs/none": r"Revision 'refs/none' doesn't exist.*check the network and the name",
    "task=xsum task.origin.path=owner/gated": r"https://huggingface\.co/datasets/owner/gated, then `hf auth login`",
    "task=xsum task.origin.config=wrong": r"BuilderConfig 'wrong' not found\. Available: \['default'\]",
    "task=xsum task.origin.splits.train=dev": r'Unknown split "dev"',
    "task=iwslt2017 task.origin.folder=nowhere": r"nowhere doesn't contain any data files",
    "task=iwslt2017 task.origin.revision=null task.origin.folder=null": (
        r"scripts are no longer supported.*task\.origin\.revision=refs/convert/parquet task\.origin\.folder=CONFIG"
    ),
}
PICKLE = r"its weights are a pickle \(pytorch_model\.bin\), which can run code and is never read"
BAD_MODELS = {
    "nobody/nothing": "no such folder here and no such model on the Hugging Face hub",
    "owner/whole large.revision=none": r"owner/whole: has no revision none; see its branches",
    "owner/whole large.tokenizer=nobody/nothing": "nobody/nothing: no such folder here and no such model",
    "owner/whole large.tokenizer=owner/gated": r"owner/gated: ask for access on .*owner/gated, then `hf auth login`",
    "owner/gated": r"owner/gated: ask for access on https://huggingface\.co/owner/gated, then `hf auth login`",
    "owner/cut": r"owner/cut: the model cannot be loaded .*where a download broke off, run the same command again",
    "owner/shards": r"owner/shards: the model cannot be loaded .*model-00002-of-00003\.safetensors.*its files whole",
    "owner/pickle": f"owner/pickle: {PICKLE}; https://huggingface.co/spaces/safetensors/convert proposes safetensors",
    "owner/stranger": f"owner/stranger: {PICKLE}; https://huggingface.co/spaces/safetensors/convert",
    "google/mt5-large large.revision=main": f"{PICKLE}; its revision refs/pr/4 holds them as safetensors",
    "owner/empty": r"owner/empty: holds no weights \(no file \*\.safetensors\)$",
}


@pytest.fixture
def hub(hub: LocalHub, tmp_path: Path) -> LocalHub:
    """With all data sets, all models, and some that something is wrong with."""
    data.publish(hub, tmp_path / "datasets")
    hub.digests = models.publish(hub, tmp_path / "models")
    for name, trouble in {"gated": {"gated": True}, "once": {"cut": {FILE: 1}}}.items():
        folder = tmp_path / "troubled" / name
        folder.mkdir(parents=True)
        data.DATASETS["EdinburghNLP/xsum"](folder)
        hub.publish("datasets", f"owner/{name}", folder, **trouble)
    for name, times in {"whole": 0, "cut": 99, "once": 1}.items():
        hub.digests[f"owner/{name}"] = models.original(hub, f"owner/{name}", tmp_path / "models" / "owner" / name)
        hub.repositories["models", f"owner/{name}"].cut = {"model.safetensors": times}
    gemma = models.REPOSITORIES["google/gemma-2-2b"]
    gemma(hub, "owner/gated", tmp_path / "gated")
    gemma(hub, "owner/shards", tmp_path / "shards")
    hub.repositories["models", "owner/shards"].gated = False
    (tmp_path / "shards" / "model-00002-of-00003.safetensors").unlink()
    bin_only = models.converted(tied=True, multilingual=False, numbers=(3,))
    for name, proposals in {
        "pickle": [],
        "stranger": [(3, "somebody", models.TITLE), (4, models.BOT, "Other")],
    }.items():
        bin_only(hub, f"owner/{name}", tmp_path / name)
        hub.repositories["models", f"owner/{name}"].proposals = proposals
    (tmp_path / "empty").mkdir()
    models.write_config(tmp_path / "empty", models.t5(tied=True))
    hub.publish("models", "owner/empty", tmp_path / "empty")
    return hub


def named() -> dict[str, str]:
    """Every hub model that a YAML names, by an override that makes it the large or the small model, each once."""
    found = {}
    for name in sorted(path.stem for path in (CONF / "model").glob("*.yaml")):
        path = "" if name == "path" else composed("finetune", f"model={name}").model.path
        if path and not path.startswith("checkpoints/"):
            found[f"large={name}"] = path
    for name in sorted(path.stem for path in (CONF / "experiment").glob("*-*aligned.yaml")):
        config = composed("evaluate", f"experiment={name}")
        for role in ("large", "small"):
            if config[role].path not in found.values():
                found[f"experiment={name} {role}"] = config[role].path
    return found


def request(named: str) -> list[Any]:
    override, _, role = named.partition(" ")
    return [role if role else "large", [override]]


def large(named: str) -> list[Any]:
    path, *others = named.split()
    return ["large", ["large=path", f"large.path={path}", *others]]


def pairs(overrides: str, *splits: str) -> list[Any]:
    return ["task", overrides.split(), splits]


def downloads(hub: LocalHub, *endings: str) -> list[str]:
    return [line for line in hub.log if line.startswith("GET ") and line.endswith(endings)]


def spelled(*, byte_fallback: bool) -> list[int]:
    model = sentencepiece.SentencePieceProcessor(model_proto=models.pieces(byte_fallback=byte_fallback))
    return [*model.encode(models.TEXTS[0]), 1]


def test_what_lies_on_the_hub_loads(hub: LocalHub, tmp_path: Path, subtests: pytest.Subtests) -> None:
    wanted = named()
    assert set(PAIRS) == {name for name in TASKS if isinstance(task(name).origin, Hub)}
    assert {*wanted.values()} <= set(models.REPOSITORIES)
    requests = [pairs(f"task={name}", *SPLITS) for name in PAIRS] + [request(words) for words in wanted]
    requests += [pairs("task=xsum task.origin.path=owner/once", "train"), large("owner/once")]
    answers = iter(ask(requests, hub, tmp_path / "home", HF_TOKEN="hf_local"))
    for name, (row, parts) in PAIRS.items():
        with subtests.test(task=name):
            assert next(answers) == {
                split: [row(there, number) for number in rows] for split, (there, rows) in parts.items()
            }
    for words, path in wanted.items():
        with subtests.test(model=words):
            found = next(answers)
            assert found["digest"] == hub.digests[path]
            assert found["pad"] is not None
            if "t5" in path.lower():
                multilingual = "mt5" in path.lower()
                assert found["class"] == ("MT5" if multilingual else "T5") + "ForConditionalGeneration"
                assert found["tokens"] == spelled(byte_fallback=multilingual)
    with subtests.test("a download that breaks off once goes on"):
        assert len(next(answers)["train"]) == 6
        assert next(answers)["digest"] == hub.digests["owner/once"]
    assert not downloads(hub, ".bin", ".py"), "nobody wants pickles and scripts"
    hub.close()
    here = [*map(large, ("google/mt5-large", "owner/pickle", "google-t5/t5-small"))]
    with subtests.test("without a network what was downloaded serves"):
        conversion, never, original = ask(here, hub, tmp_path / "home")
        assert conversion["note"].endswith("from google/mt5-large, as safetensors of refs/pr/4")
        assert [conversion["digest"], original["digest"]] == [
            hub.digests[name] for name in ("google/mt5-large", "google-t5/t5-small")
        ]
        assert never.startswith("owner/pickle: not a folder here, and the Hugging Face hub cannot be reached (")


def test_what_goes_wrong_is_one_line(hub: LocalHub, tmp_path: Path, subtests: pytest.Subtests) -> None:
    requests = [*(pairs(overrides, "train") for overrides in BAD_TASKS), *map(large, BAD_MODELS)]
    answers = iter(ask(requests, hub, tmp_path / "home"))
    for words, told in (BAD_TASKS | BAD_MODELS).items():
        with subtests.test(words):
            answer = next(answers)
            assert isinstance(answer, str)
            assert re.search(told, answer)
            assert "\n" not in answer
            assert not words.startswith("task=") or answer.endswith(
                "task.data_files={train: F, validation: F, test: F}"
            )
    assert not downloads(hub, ".bin")
