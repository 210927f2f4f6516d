"""Tasks: every YAML instantiates, local files replace the origin, wrong splits and fields are refused, fingerprints."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from datasets import Dataset, Features, Translation
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import constants
from hydra.errors import HydraException
from hydra.utils import instantiate

from pipelines.cli import CONF, UserError
from pipelines.data.hub import Hub
from pipelines.data.task import SPLITS, Task, fingerprint
from pipelines.data.toy.de_en import ToyDeEn
from tests.conf import composed

TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def task(name, *overrides):
    return instantiate(composed("finetune", f"task={name}", *overrides).task)


FEW_SHOT = {
    "gsm8k": "number",
    "squad_v2": "f1",
    "web_questions": "exact_match",
    "nq_open": "exact_match",
    "trivia_qa": "exact_match",
    "wmt14_few_shot": "bleu",
}
TRANSLATIONS = {"toy_de_en", "iwslt2017", "wmt14", "wmt14_en_de", "multi30k"}


def test_the_tasks_are_there():
    papers = {"iwslt2017", "wmt14", "wmt14_en_de", "xsum", "cnn_dailymail"}
    assert papers | {"multi30k", "dialogsum", "docstrings", "toy_de_en", "toy_reports"} | set(FEW_SHOT) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_yaml_instantiates(name):
    loaded = task(name)
    assert isinstance(loaded, Task)
    assert loaded.name == name
    assert loaded.version >= 1
    assert loaded.metric == FEW_SHOT.get(name, "bleu" if name in TRANSLATIONS else "rouge")
    assert set(loaded.data_files) == set(SPLITS)
    assert (loaded.prompt is not None) == (name in FEW_SHOT)
    if isinstance(loaded.origin, Hub):
        assert set(loaded.origin.splits) == set(SPLITS)
    if isinstance(loaded.origin, Hub) and loaded.prompt is None:
        assert loaded.target_length == 128
        assert loaded.prefix == ("summarize: " if loaded.metric == "rouge" else "")


@pytest.mark.parametrize("name", ["xsum", "toy_de_en"])
@pytest.mark.parametrize("override", ["task.prefx=a", "task.data_files={dev: a.csv}", "task.origin.sead=3"])
def test_misspelt_key_is_refused(name, override):
    with pytest.raises(HydraException, match=r"[Kk]ey|Could not override"):
        task(name, override)


@pytest.mark.parametrize("name", sorted(set(TASKS) - set(FEW_SHOT)))
def test_local_files_replace_the_origin(name, tmp_path):
    plain = task(name)
    columns = (plain.source_column, plain.target_column)
    path = tmp_path / "rows.jsonl"
    rows = []
    for number in range(4):
        row = {}
        for column, text in zip(columns, ("source", "target"), strict=True):
            place = row
            *parents, last = column.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = f"{text} {number}"
        rows.append(json.dumps(row) + "\n")
    path.write_text("".join(rows))
    local = task(name, f"task.data_files={{train: {path}, test: {path}}}")
    assert list(local.load("train")["target"]) == [f"target {number}" for number in range(4)]
    assert local.load("test", limit=2).num_rows == 2
    with pytest.raises(UserError, match=r"no file for the split 'validation'.*task\.data_files\.validation=FILE"):
        local.load("validation")


def test_other_columns_by_override(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,deutsch,englisch\n1,eins,one\n")
    local = task(
        "multi30k",
        f"task.data_files.train={path}",
        "task.source_column=englisch",
        "task.target_column=deutsch",
        "task.prefix='to German: '",
    )
    assert local.load("train")[0] == {"source": "one", "target": "eins"}
    assert local.prefix == "to German: "


def test_wrong_split_and_fields():
    toy = task("toy_de_en")
    with pytest.raises(UserError, match="no split 'dev'; choose one of train, validation, test"):
        toy.load("dev")
    with pytest.raises(UserError, match="limit=0"):
        toy.load("train", limit=0)
    fields = {"name": "x", "version": 1, "metric": "bleu", "origin": ToyDeEn(), "source_length": 8, "target_length": 8}
    for wrong in ({"metric": "blue"}, {"source_length": 1}, {"target_length": 0}, {"data_files": {"dev": "x"}}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Task(**{**fields, **wrong})


def dataset(*pairs):
    return Dataset.from_dict({"source": [source for source, _ in pairs], "target": [target for _, target in pairs]})


def test_fingerprint_is_of_content_and_order_only():
    rows = [("a", "b"), ("c", "d"), ("ab", "c")]
    same = fingerprint(dataset(*rows))
    assert same == fingerprint(dataset(*rows))
    assert same == fingerprint(dataset(("x", "y"), *rows).select([1, 2, 3]))
    assert same == fingerprint(dataset(*rows).add_column("id", [1, 2, 3]))
    others = [
        dataset(*rows[:2]),
        dataset(rows[1], rows[0], rows[2]),
        dataset(("a", "bc"), ("", "d"), ("ab", "c")),
        dataset(("a", "b"), ("c", "d"), ("a", "bc")),
        dataset(("b", "a"), ("d", "c"), ("c", "ab")),
        dataset(("a ", "b"), ("c", "d"), ("ab", "c")),
    ]
    assert len({same, *map(fingerprint, others)}) == 7


# What each dataset is on the hub: the arguments of load_dataset before the split, and the columns of a row.
CONVERTED = "refs/convert/parquet"
TRANSLATION = {"translation": {"de": "a", "en": "b"}}
ON_THE_HUB = {
    "iwslt2017": ("IWSLT/iwslt2017", None, "iwslt2017-de-en", CONVERTED, TRANSLATION),
    "wmt14": ("wmt/wmt14", "de-en", None, None, TRANSLATION),
    "wmt14_en_de": ("wmt/wmt14", "de-en", None, None, {"translation": {"en": "a", "de": "b"}}),
    "multi30k": ("bentrevett/multi30k", None, None, None, {"en": "b", "de": "a"}),
    "xsum": ("EdinburghNLP/xsum", None, None, None, {"document": "a", "summary": "b", "id": "1"}),
    "cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0", None, None, {"article": "a", "highlights": "b", "id": "1"}),
    "dialogsum": ("knkarthick/dialogsum", None, None, None, {"id": "1", "dialogue": "a", "summary": "b", "topic": "c"}),
}


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_each_hub_task_asks_for_its_dataset_and_finds_its_columns(name, monkeypatch):
    path, config, folder, revision, row = ON_THE_HUB[name]
    asked = []

    def load_dataset(path, name=None, data_dir=None, revision=None, split=None):
        asked.append((path, name, data_dir, revision, split))
        return Dataset.from_list([row])

    assert set(inspect.signature(load_dataset).parameters) <= set(inspect.signature(datasets.load_dataset).parameters)
    monkeypatch.setattr("pipelines.data.hub.load_dataset", load_dataset)
    for split in SPLITS:
        assert list(task(name).load(split)) == [{"source": "a", "target": "b"}]
    assert asked == [(path, config, folder, revision, split) for split in SPLITS]


def test_all_hub_tasks_are_known():
    assert set(ON_THE_HUB) | set(FEW_SHOT) == {name for name in TASKS if isinstance(task(name).origin, Hub)}


@pytest.fixture(params=["{config}/train/0000.parquet", "{config}/iwslt-train.parquet"])
def hub(tmp_path, request):
    """A folder laid out as the hub's refs/convert/parquet, of today and of old: a folder per config, no card."""
    features = Features({"translation": Translation(["de", "en"])})
    rows = {"iwslt-de-en": [("a", "b"), ("", "x"), ("c", "d"), ("e", " ")], "iwslt-fr-en": [("falsch", "wrong")]}
    for config, pairs in rows.items():
        file = tmp_path / "iwslt" / request.param.format(config=config)
        file.parent.mkdir(parents=True)
        values = [{"de": source, "en": target} for source, target in pairs]
        Dataset.from_dict({"translation": values}, features=features).to_parquet(file)
    return str(tmp_path / "iwslt")


def test_hub_reads_one_config_and_leaves_out_empty_rows(hub):
    columns = ("translation.de", "translation.en")
    rows = Hub(path=hub, folder="iwslt-de-en").load("train", columns, None)
    assert list(rows) == [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]
    assert list(Hub(path=hub, folder="iwslt-de-en").load("train", columns, 1)) == list(rows)[:1]


def test_hub_errors_are_one_line(hub):
    columns = ("translation.de", "translation.en")
    with pytest.raises(UserError, match=r"no column 'summary' \(it has translation\.de, translation\.en\)"):
        Hub(path=hub, folder="iwslt-de-en").load("train", ("summary", "x"), None)
    with pytest.raises(UserError, match="Unknown split"):
        Hub(path=hub, folder="iwslt-de-en").load("test", columns, None)
    with pytest.raises(UserError, match="has no split 'test'; it has train"):
        Hub(path=hub, folder="iwslt-de-en", splits={"train": "train"}).load("test", columns, None)
    with pytest.raises(UserError, match=r"BuilderConfig 'de-en' not found"):
        Hub(path=hub, config="de-en").load("train", columns, None)
    with pytest.raises(UserError, match=r"task\.data_files=") as caught:
        Hub(path=str(Path(hub) / "nowhere")).load("train", columns, None)
    assert "\n" not in str(caught.value)


def test_hub_file_that_is_no_parquet(tmp_path):
    folder = tmp_path / "broken" / "train"
    folder.mkdir(parents=True)
    (folder / "0000.parquet").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"cannot load .*broken.*task\.data_files="):
        Hub(path=str(tmp_path / "broken")).load("train", ("source", "target"), None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'owner/name' on the Hub (LocalEntryNotFoundError)\nmore"),
        DatasetGenerationError("Couldn't reach the end of the data"),
        RuntimeError("Dataset scripts are no longer supported. Couldn't reach another way"),
    ],
    ids=["network", "data", "script"],
)
def test_hub_out_of_reach(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("pipelines.data.hub.load_dataset", fail)
    told = r"cannot load owner/name .*Couldn't reach.*(check the network|the hub's conversion).*data_files"
    with pytest.raises(UserError, match=told) as caught:
        Hub(path="owner/name").load("train", ("source", "target"), None)
    assert "\n" not in str(caught.value)


class ConnectError(Exception):
    """As the hub client's HTTP library calls it when nothing answers."""


@pytest.mark.parametrize(
    ("error", "offline", "told"),
    [
        (
            ConnectError("no such host"),
            True,
            r"\(it cannot be reached, and nothing was downloaded before\); check the net",
        ),
        (TimeoutError("slow"), False, r"\(no answer\); check the network"),
    ],
)
def test_without_network_nobody_waits_for_retries(error, offline, told, monkeypatch):
    """Slow networks keep theirs."""
    modes = []

    def ask(path, timeout):
        raise error

    def load_dataset(*args, **kwargs):
        modes.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        raise ConnectionError("no answer")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("pipelines.data.hub.HfApi", lambda: SimpleNamespace(dataset_info=ask))
    monkeypatch.setattr("pipelines.data.hub.load_dataset", load_dataset)
    with pytest.raises(UserError, match=told):
        Hub(path="owner/name").load("train", ("source", "target"), None)
    assert modes == [(offline, offline)]
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
