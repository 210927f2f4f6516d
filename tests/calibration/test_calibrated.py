"""What becomes of a policy that lies beside a pair: used where it fits and nobody chose, named where it does not."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

import bild
from pipelines import evaluate, generate
from pipelines.cli import CONF
from pipelines.decoding import calibrated
from pipelines.decoding.calibrated import Chosen
from pipelines.decoding.config import decoding, instantiated
from pipelines.models import manifest
from pipelines.models.fingerprint import key
from pipelines.models.sources import NO_EXIT
from tests.calibration.conftest import BESIDE, pair_words
from tests.conf import composed
from tests.evaluation.conftest import SOURCES


@pytest.fixture
def typed(done, pair_folder, tmp_path, monkeypatch) -> Callable[..., None]:
    """Runs a pipeline as from a command line, beside a copy of the finished calibration."""
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: str) -> None:
        with initialize_config_dir(str(CONF), version_base=None):
            config = compose(name, [*pair_words(pair_folder), *words], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        {"evaluate": evaluate, "generate": generate}[name].main(config)

    yield run
    HydraConfig.instance().cfg = None


@pytest.fixture
def evaluated(typed, capsys) -> Callable[..., tuple[dict, str]]:
    """Its result, and the line about the policy."""

    def run(*words: str) -> tuple[dict, str]:
        capsys.readouterr()
        typed("evaluate", "limit=4", "latency_limit=1", "out=fresh", *words)
        [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("policy ")]
        [path] = Path("fresh/made").glob("*.json")
        return json.loads(path.read_text()), line

    return run


@pytest.fixture
def choice(done, tmp_path, monkeypatch) -> Callable[..., tuple[Chosen, str]]:
    """What is chosen for a pair of the calibrated one's weights where nobody chose, and the line that says so."""
    shutil.copytree(done.folder / "checkpoints", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrated, "user_chose", lambda: False)
    described = {role: SimpleNamespace(**model) for role, model in done.content["models"].items()}
    pair = SimpleNamespace(described=described, shortlist=None)

    def run(*words: str, text: str = json.dumps(done.content), **sections: object) -> tuple[Chosen, str]:
        BESIDE.write_text(json.dumps({**json.loads(text), **sections}) if sections else text)
        config = composed("evaluate", *pair_words(Path("anywhere")), *words)
        task, policy = instantiated(config, "task"), instantiated(config, "bild")
        found = calibrated.chosen(config, pair, task, policy, decoding(config, task, policy))
        return found, "; ".join(found.notes)

    return run


def test_evaluate_takes_it_up_and_says_what_is_promised(evaluated, done):
    content, line = evaluated()
    calibration = done.content
    assert content["policy"] == calibration["policy"]
    assert content["promise"] == {**calibration["promise"], "here": "new rows"}
    assert content["provenance"]["config"]["bild"] == calibration["bild"]
    assert line == f"policy {calibration['label']}; calibrated in {BESIDE}, {calibration['promise']['statement']}"


@pytest.mark.parametrize("words", [("bild.fallback=0.6",), ("bild=big_little",)])
def test_what_the_user_chose_stands(evaluated, words):
    content, line = evaluated(*words)
    assert content["policy"]["fallback"] == 0.6
    assert content["promise"] is None
    assert line == "policy BigLittle fallback=0.6 rollback=2; from the command line"


def test_no_experiment_is_no_choice(evaluated, done):
    """Hydra itself refuses experiment=null."""
    assert evaluated("~experiment")[0]["policy"] == done.content["policy"]


def test_without_one_nothing_is_said(evaluated):
    BESIDE.unlink()
    content, line = evaluated()
    assert line == f"policy BigLittle fallback=0.6 rollback=2; the default, not calibrated (there is no {BESIDE})"
    assert content["promise"] is None


def test_one_of_other_weights_is_named_and_not_used(evaluated):
    content = json.loads(BESIDE.read_text())
    BESIDE.write_text(json.dumps({**content, "fits": {**content["fits"], "weights of small": "0" * 64}}))
    result, line = evaluated()
    assert result["policy"]["rollback"] == 2
    assert result["promise"] is None
    told = f"the default, as {BESIDE} is not used: weights of small is 0000"
    assert line.startswith(f"policy BigLittle fallback=0.6 rollback=2; {told}")
    assert line.endswith("; calibrate again, or remove it")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("do_sample=true", "do_sample is False there and True now"),
        ("max_new_tokens=5", "max_new_tokens is 6 there and 5 now"),
        ("engine=hf", "engine is auto there and hf now"),
        ("task.prefix=x", "task.prefix is  there and x now"),
        ("task.version=9", "task.version is "),
    ],
)
def test_one_of_other_settings_is_named_and_not_used(choice, word, told):
    found, line = choice(word)
    assert found.policy == bild.BigLittle()
    assert found.promise is None
    assert f"{BESIDE} is not used: {told}" in line


def test_in_another_dtype_it_is_the_dtype_that_differs(choice, done):
    models, fits = json.loads(json.dumps([done.content["models"], done.content["fits"]]))
    models["large"]["dtype"] = "bfloat16"
    line = choice(models=models, fits={**fits, "weights of large": "0" * 64, "weights of small": "0" * 64})[1]
    assert f"{BESIDE} is not used: dtype is bfloat16 there and float32 now; calibrate again" in line


def test_another_shortlist_is_not_called_other_weights(done, monkeypatch, tmp_path):
    monkeypatch.chdir(done.folder)
    config = composed("evaluate", *pair_words(Path("anywhere")))
    task = instantiated(config, "task")
    described = {role: SimpleNamespace(**model) for role, model in done.content["models"].items()}
    monkeypatch.setattr(calibrated, "drafts_hash", lambda small: small)
    pair = SimpleNamespace(described=described, shortlist=(3, 1), small=described["small"].weights)
    described["small"].weights = "both hashed together"
    found = calibrated.identity(pair, task, decoding(config, task, bild.BigLittle()))
    told = [f"small.shortlist is (not set) there and {key([3, 1])} now"]
    assert manifest.differences(done.content["fits"], found) == told


def test_a_model_that_tokens_leave_early_was_trained_for_that(choice, monkeypatch):
    found, line = choice("bild=calm", schema=2)
    assert found.policy == bild.Calm()
    assert line.endswith(f"it leaves large before its last layer, and {NO_EXIT}")
    monkeypatch.setattr(calibrated, "has_exit", lambda path, layer: layer == bild.Calm().first_exit)
    assert NO_EXIT not in choice("bild=calm", schema=2)[1]


def test_other_seeds_and_batches_are_no_others(choice, done):
    found, line = choice("seed=7", "batch_size=2", "limit=3")
    assert found.promise == {**done.content["promise"], "here": "new rows"}
    assert f"calibrated in {BESIDE}, {found.promise['statement']}" == line


def test_on_the_split_that_it_was_calibrated_on_it_says_so(choice, done):
    found, line = choice("split=validation")
    assert found.policy != bild.BigLittle()
    assert found.promise == {**done.content["promise"], "here": "the split it was calibrated on"}
    assert line.endswith("; these rows are not new, they are of the split that it was calibrated on")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("task.data_files.test=other.jsonl", "task.data_files is {'"),
        ("task.data_files={train: null, validation: null, test: null}", "task.origin is (not set)"),
        ("task.source_column=text", "task.source_column is source there and text now"),
    ],
)
def test_of_other_data_nothing_is_promised(choice, done, word, told):
    """Also on a split of the same name."""
    for split in ("test", "validation"):
        found, line = choice(word, f"split={split}")
        assert found.policy != bild.BigLittle()
        assert found.promise == {**done.content["promise"], "here": "other data"}
        assert "of these rows that says nothing, they are other data: " in line
        assert told.replace("(not set)", "None") in line


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1, "kind": "calibration", "fits": 3}'])
def test_a_damaged_one_is_named_and_not_used(choice, text):
    found, line = choice(text=text)
    assert found.policy == bild.BigLittle()
    assert f"{BESIDE} is not used: it cannot be read" in line


def test_one_of_another_schema_is_named_and_not_used(choice):
    assert "is not used: it is no calibration of schema 1" in choice(schema=2)[1]


def test_an_infinite_threshold_comes_back(choice, done):
    [node] = [point["bild"] for point in done.content["curve"] if point["bild"].get("rollback") == "inf"]
    assert choice(bild=node)[0].policy == bild.BigLittle(fallback=0.02, rollback=math.inf)


def test_generate_takes_it_up_and_says_so_apart_from_the_texts(typed, done, capsys):
    Path("in.txt").write_text("".join(f"{source}\n" for source in SOURCES[:3]))
    thresholds = [f"bild.{name}={value}" for name, value in done.content["bild"].items() if name != "_target_"]
    texts = {}
    for name, words in {"calibrated": (), "same": thresholds, "other": ("bild=large_only",)}.items():
        capsys.readouterr()
        typed("generate", "input=in.txt", f"output={name}.txt", *words)
        told = capsys.readouterr().err
        [line] = [line for line in told.splitlines() if line.startswith("policy ")]
        assert line.partition("; ")[2].partition(" ")[0] == ("calibrated" if name == "calibrated" else "from")
        assert (done.content["promise"]["statement"] in told) == (name == "calibrated")
        texts[name] = Path(f"{name}.txt").read_text()
    assert texts["calibrated"] == texts["same"] != texts["other"]


def test_a_checkpoint_of_the_task_keeps_it_itself(pair_folder):
    def pair(small: str) -> SimpleNamespace:
        paths = {"large": "checkpoints/made/tiny-large", "small": small}
        return SimpleNamespace(
            described={role: SimpleNamespace(path=path, name="tiny-" + role) for role, path in paths.items()}
        )

    inside = pair("checkpoints/made/tiny-small-aligned")
    assert calibrated.place(inside, "made") == Path("checkpoints/made/tiny-small-aligned/policy.json")
    beside = Path("checkpoints/made/tiny-large+tiny-small/policy.json")
    for small in ("checkpoints/pretrained/tiny-small", "org/tiny-small", "/models/tiny-small", "tiny-small", None):
        assert calibrated.place(pair(small), "made") == beside
