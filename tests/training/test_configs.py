"""Every model's and experiment's file composes and instantiates; a misspelt key does not."""

import dataclasses

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import DictConfig

from pipelines.cli import CONF, UserError
from pipelines.models.loading import Model
from pipelines.training.settings import TrainSettings
from tests.training import tiny

MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
PUBLISHED = sorted(path.stem for path in (CONF / "experiment").glob("*-*.yaml"))
PATH = ["{}.name=mine", "{}.path=somewhere/mine"]


def composed(root: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        return compose(root, list(overrides))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_composes(name) -> None:
    named = [key.format("model") for key in PATH] if name == "path" else []
    config = composed("finetune", f"model={name}", *named)
    model, settings = instantiate(config.model), instantiate(config.train)
    assert isinstance(model, Model)
    assert model.name == ("mine" if name == "path" else name)
    assert isinstance(settings, TrainSettings)
    assert (settings.learning_rate, settings.max_steps) == (model.learning_rate, model.max_steps)
    assert config.out == f"checkpoints/toy_de_en/{model.name}"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_either_of_a_pair(name) -> None:
    named = [key.format(role) for role in ("large", "small") for key in PATH] if name == "path" else []
    config = composed("evaluate", f"large={name}", f"small={name}", *named)
    assert config.large == config.small
    assert isinstance(instantiate(config.small), Model)


def test_the_paper_s_recipe_is_the_default() -> None:
    for name, rate in (("t5-small", 2e-4), ("mt5-small", 2e-4), ("t5-large", 1e-4), ("mt5-large", 1e-4)):
        settings = instantiate(composed("finetune", f"model={name}", "task=xsum").train)
        assert (settings.learning_rate, settings.max_steps, settings.batch_size) == (rate, 500_000, 16)
        assert (settings.schedule, settings.warmup_steps, settings.scale_parameter) == ("constant", 0, False)


def test_the_authors_checkpoints_are_all_there() -> None:
    paths = set()
    for name in PUBLISHED:
        config = composed("evaluate", f"experiment={name}")
        paths |= {config.large.path, config.small.path}
        assert config.large.tokenizer == config.small.tokenizer
        assert config.large.tokenizer == ("google/mt5-small" if "mT5" in config.large.path else "google-t5/t5-small")
        assert ("aligned" in config.small.path) == ("unaligned" not in name)
    assert len(PUBLISHED) == 16
    assert len(paths) == 12
    assert {path.split("/")[0] for path in paths} == {"kssteven"}


@pytest.mark.parametrize(
    ("name", "task", "thresholds"),
    [
        ("iwslt-unaligned", "iwslt2017", (0.6, 2)),
        ("wmt-aligned", "wmt14", (0.8, 2)),
        ("xsum-aligned-fast", "xsum", (0.4, 5)),
        ("cnndm-unaligned-fast", "cnn_dailymail", (0.2, 6)),
    ],
)
def test_published_rows(name, task, thresholds) -> None:
    config = composed("evaluate", f"experiment={name}")
    policy = instantiate(config.bild)
    assert (config.task.name, config.split) == (task, "validation")
    assert (policy.fallback, policy.rollback) == thresholds
    assert isinstance(instantiate(config.small), Model)


def test_the_grid_gives_each_rate_its_folder() -> None:
    config = composed("finetune", "experiment=finetune_grid", "train.learning_rate=5e-5")
    assert config.out == "checkpoints/toy_de_en/tiny-small-lr5e-05"


@pytest.mark.parametrize("key", ["train.maxsteps=3", "model.pth=x", "sed=1", "train.learning-rate=1"])
def test_a_misspelt_key_fails(key) -> None:
    with pytest.raises(ConfigCompositionException, match=key.split("=")[0]):
        composed("finetune", key)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_steps": 0}, r"train\.max_steps=0: must be a whole number of at least 1"),
        ({"max_steps": None}, r"train\.max_steps=None: must be a whole number of at least 1$"),
        ({"batch_size": 1.5}, r"train\.batch_size=1\.5: must be a whole number"),
        ({"patience": 0}, r"train\.patience=0: must be a whole number of at least 1, or null for never"),
        ({"learning_rate": "fast"}, r"train\.learning_rate=fast: give a number above 0"),
        ({"learning_rate": float("nan")}, r"train\.learning_rate=nan"),
        ({"warmup_steps": -1}, r"train\.warmup_steps=-1"),
        ({"label_smoothing": 1}, r"train\.label_smoothing=1: give a number from 0 to below 1"),
        ({"schedule": "sawtooth"}, r"train\.schedule=sawtooth: give one of constant, inverse_sqrt"),
        ({"wandb": "on"}, r"train\.wandb=on: give one of disabled, offline, online"),
        ({"bf16": "maybe"}, r"train\.bf16=maybe: give auto, true or false"),
        ({"group_by_length": 1}, r"train\.group_by_length=1: give true or false"),
        ({"device": "tpu"}, "device=tpu: give one of auto, cpu, cuda"),
        ({"seed": -1}, "^seed=-1: must be a whole number of at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, told) -> None:
    with pytest.raises(UserError, match=told):
        dataclasses.replace(tiny.SETTINGS, **change)


@pytest.mark.parametrize(
    ("device", "bf16", "gpu", "computed"),
    [
        ("auto", "auto", True, True),
        ("auto", "auto", False, False),
        ("cpu", "auto", True, False),
        ("auto", False, True, False),
        ("cuda", True, True, True),
    ],
)
def test_the_precision_that_is_computed_in_is_identity(device, bf16, gpu, computed, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu)
    settings = dataclasses.replace(tiny.SETTINGS, device=device, bf16=bf16)
    assert settings.identity()["train.bf16"] is computed


def test_what_does_not_touch_the_weights_is_not_identity() -> None:
    identity = tiny.SETTINGS.identity()
    assert "train.max_steps" not in identity
    assert {"train.batch_size", "train.learning_rate", "train.schedule", "seed"} <= identity.keys()
    changed = dataclasses.replace(tiny.SETTINGS, max_steps=99, log_every=1, save_every=1, evaluate_every=1, keep=9)
    assert changed.identity() == identity
    assert dataclasses.replace(tiny.SETTINGS, schedule="cosine").identity()["train.max_steps"] == 22
