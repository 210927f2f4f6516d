"""Few-shot prompts, letter by letter, for every task that has one, from rows as they lie on the hub."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from hydra.utils import instantiate

from pipelines.cli import UserError
from pipelines.data.prompt import FewShot
from pipelines.data.task import SPLITS, Task, refuse_prompt
from tests.conf import composed

TEMPLATE = "Q: {source}\nA: {target}\n\n"
CARD = {"entity_pages": {"title": []}, "search_results": {"rank": []}, "question_source": "web"}
LEWIS = {"aliases": ["Lewis", "Harry Sinclair Lewis"], "normalized_aliases": ["lewis"], "value": "Sinclair Lewis"}
NORMANS = {"context": "The Normans came\nin 911.", "title": "Normans", "id": "5"}
# By task: a row, and how it is asked and answered in an example.
ROWS = {
    "gsm8k": (
        {"question": "Tom has 3 eggs.\nHe eats 1. How many?", "answer": "3 - 1 = <<3-1=2>>2 eggs.\n#### 2"},
        "Question: Tom has 3 eggs. He eats 1. How many?\nAnswer: 3 - 1 = <<3-1=2>>2 eggs. #### 2\n\n",
    ),
    "squad_v2": (
        {**NORMANS, "question": "When?", "answers": {"text": ["911", "in 911"], "answer_start": [20, 17]}},
        "Passage: The Normans came in 911. Question: When?\nAnswer: 911\n\n",
    ),
    "web_questions": (
        {"url": "http", "question": "what does jamaican people speak?", "answers": ["Patois", "English"]},
        "Question: what does jamaican people speak?\nAnswer: Patois\n\n",
    ),
    "nq_open": (
        {"question": "who got the first nobel prize", "answer": ["Wilhelm Conrad Röntgen", "Röntgen"]},
        "Question: who got the first nobel prize\nAnswer: Wilhelm Conrad Röntgen\n\n",
    ),
    "trivia_qa": (
        {"question": "Which American was first?", "answer": LEWIS, "question_id": "1", **CARD},
        "Question: Which American was first?\nAnswer: Sinclair Lewis\n\n",
    ),
    "wmt14_few_shot": (
        {"translation": {"de": "Guten Tag.", "en": "Good day."}},
        "German: Guten Tag.\nEnglish: Good day.\n\n",
    ),
}
TARGETS = {
    "squad_v2": "911\nin 911",
    "web_questions": "Patois\nEnglish",
    "nq_open": "Wilhelm Conrad Röntgen\nRöntgen",
    "trivia_qa": "Sinclair Lewis\nLewis\nHarry Sinclair Lewis",
}
HUB = {
    "gsm8k": ("openai/gsm8k", "main", ["train[:-500]", "train[-500:]", "test"]),
    "squad_v2": ("rajpurkar/squad_v2", None, ["train[:-2000]", "train[-2000:]", "validation"]),
    "web_questions": ("stanfordnlp/web_questions", None, ["train[:-500]", "train[-500:]", "test"]),
    "nq_open": ("google-research-datasets/nq_open", None, ["train[:-2000]", "train[-2000:]", "validation"]),
    "trivia_qa": ("mandarjoshi/trivia_qa", "rc.nocontext", ["train[:-2000]", "train[-2000:]", "validation"]),
    "wmt14_few_shot": ("wmt/wmt14", "de-en", ["train", "validation", "test"]),
}
UNANSWERABLE = {**NORMANS, "question": "Why?", "answers": {"text": [], "answer_start": []}}


def task(name: str, *overrides: str) -> Task:
    return instantiate(composed("evaluate", f"task={name}", *overrides).task)


def local(tmp_path: Path, name: str, rows: list, *overrides: str) -> Task:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return task(name, f"task.data_files={{train: {path}, test: {path}}}", *overrides)


@pytest.mark.parametrize("name", ROWS)
def test_prompts_from_local_files(name, tmp_path):
    row, example = ROWS[name]
    given = local(tmp_path, name, [row] * 9)
    shots = {"gsm8k": 8, "squad_v2": 4}.get(name, 5)
    assert given.examples == (example,) * shots
    [source] = given.load("test", limit=1)["source"]
    beginning = example[: example.index("Answer:" if "Answer:" in example else "English:")]
    cue = "Answer:" if "Answer:" in example else "English:"
    assert given.prompt.text(given.examples, source) == example * shots + beginning + cue
    [target] = given.load("test", limit=1)["target"]
    if name in TARGETS:
        assert target == TARGETS[name]
    assert example.endswith(f" {target.splitlines()[0]}\n\n")


@pytest.mark.parametrize("name", ROWS)
def test_each_asks_the_hub_for_its_dataset(name, monkeypatch):
    asked = []

    def load_dataset(path, name=None, data_dir=None, revision=None, split=None):
        asked.append((path, name, data_dir, revision, split))
        return Dataset.from_list([ROWS[asked_for][0]])

    asked_for = name
    assert set(inspect.signature(load_dataset).parameters) <= set(inspect.signature(datasets.load_dataset).parameters)
    monkeypatch.setattr("pipelines.data.hub.load_dataset", load_dataset)
    path, config, splits = HUB[name]
    for split in SPLITS:
        [row] = task(name).load(split)
        assert row["target"] == TARGETS.get(name, row["target"])
    assert asked == [(path, config, None, None, split) for split in splits]
    assert task(name, "task.prompt.shots=1").examples == (ROWS[name][1],)


def test_a_passage_without_an_answer_says_so(tmp_path):
    given = local(tmp_path, "squad_v2", [UNANSWERABLE], "task.prompt.shots=1")
    assert given.load("test")[0]["target"] == "unanswerable"
    assert given.examples == ("Passage: The Normans came in 911. Question: Why?\nAnswer: unanswerable\n\n",)


def pairs(number: int) -> Dataset:
    return Dataset.from_dict(
        {"source": [f"s{i}" for i in range(number)], "target": [f"t{i}\nu{i}" for i in range(number)]}
    )


def test_the_seed_chooses_the_examples():
    chosen = [FewShot(shots=3, seed=seed, template=TEMPLATE).choose(pairs(50)) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 3
    for example in chosen[0]:
        number = example.split("\n")[0].removeprefix("Q: s")
        assert example == f"Q: s{number}\nA: t{number}\n\n"


def test_no_examples_need_no_training_split(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS["nq_open"][0]) + "\n")
    given = task("nq_open", f"task.data_files.test={path}", "task.prompt.shots=0")
    assert given.examples == ()
    assert given.prompt.text((), "who") == "Question: who\nAnswer:"
    with pytest.raises(UserError, match=r"no file for the split 'train'.*task\.data_files\.train=FILE"):
        _ = task("nq_open", f"task.data_files.test={path}").examples


def test_placeholders_in_the_data_are_text():
    prompt = FewShot(shots=1, seed=0, template=TEMPLATE)
    row = Dataset.from_dict({"source": ["{target} {source}"], "target": ["{source}"]})
    assert prompt.choose(row) == ("Q: {target} {source}\nA: {source}\n\n",)
    assert prompt.text(prompt.choose(row), "{target}") == "Q: {target} {source}\nA: {source}\n\nQ: {target}\nA:"


def test_too_few_examples(tmp_path):
    row, _ = ROWS["nq_open"]
    with pytest.raises(UserError, match=r"task\.prompt\.shots=5: the train split has only 3 rows"):
        _ = local(tmp_path, "nq_open", [row] * 3).examples


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shots": -1}, r"task\.prompt\.shots=-1"),
        ({"shots": 1.5}, r"task\.prompt\.shots=1\.5"),
        ({"seed": "x"}, r"task\.prompt\.seed=x"),
        *(
            ({"template": template}, r"must hold \{source\} once and \{target\} once after it")
            for template in ("", None, "{source}", "{target} {source}", "{source} {source} {target}")
        ),
    ],
)
def test_bad_settings_are_one_line(change, told):
    with pytest.raises(UserError, match=told) as caught:
        FewShot(**{"shots": 1, "seed": 0, "template": TEMPLATE, **change})
    assert "\n" not in str(caught.value)


def test_nothing_is_trained_on_a_prompt():
    with pytest.raises(UserError, match=r"task=gsm8k: is asked with a few-shot prompt.*train on a task without one"):
        refuse_prompt(task("gsm8k"))
    refuse_prompt(task("multi30k"))
