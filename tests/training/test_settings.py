"""Settings of a training: what is refused, and what of them makes two trainings the same."""

import dataclasses

import pytest
import torch

from pipelines.cli import UserError
from tests.training import tiny


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
        ({"exits": {0: 1}}, r"train\.exits=\{0: 1\}: give the weights of decoder layers, such as \{1: 1, 8: 1\}"),
        ({"exits": {1: 0}}, r"train\.exits=\{1: 0\}: give the weights"),
        ({"exits": {}}, r"train\.exits=\{\}: give the weights"),
        ({"exits": [1, 8]}, r"train\.exits=\[1, 8\]: give the weights"),
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


def test_exits_are_identity_and_a_run_without_them_is_what_it_was() -> None:
    assert not any(name.startswith("train.exits") for name in tiny.SETTINGS.identity())
    identity = dataclasses.replace(tiny.SETTINGS, exits={8: 1, 1: 0.5}).identity()
    assert identity == {**tiny.SETTINGS.identity(), "train.exits.1": 0.5, "train.exits.8": 1}
