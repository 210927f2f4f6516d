"""What a training does besides its steps: evaluate, keep the best, stop early, group by tokens, report."""

import copy
import dataclasses
import itertools
import json
import os
import random
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.cli import UserError
from pipelines.decoding import scoring
from pipelines.models import manifest
from pipelines.training import checkpoints, tracking, validation
from pipelines.training.batches import MicroBatches
from pipelines.training.build import training_arguments
from pipelines.training.patience import out_of_patience
from pipelines.training.report import leave
from pipelines.training.trainer import preserved_random_state
from pipelines.training.validation import Validation
from tests.training import tiny

SHORT = {"max_steps": 10, "evaluate_every": 2, "save_every": 3, "label_smoothing": 0.0}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    """Validation that finds these scores, one after the other."""

    def use(*scores: float) -> None:
        remaining = iter(scores)
        monkeypatch.setattr(
            Validation, "__call__", lambda self, alone: {"eval_loss": 1.0, "eval_bleu": next(remaining)}
        )

    return use


def test_the_best_weights_are_the_result(scripted, tmp_path: Path) -> None:
    scripted(1.0, 3.0, 2.0, 3.0, 1.0)
    summary = tiny.run(tmp_path, **SHORT)
    assert (summary.ended, summary.steps, summary.best, summary.best_step) == ("complete", 10, 3.0, 4)
    assert tiny.weights(tmp_path) == tiny.weights(tmp_path / "checkpoint-4")
    assert tiny.weights(tmp_path) != tiny.weights(tmp_path / "checkpoint-10")
    # The newest two, and the best, which was saved although 4 is no multiple of save_every.
    assert [folder.name for folder in checkpoints.listed(tmp_path)] == ["checkpoint-4", "checkpoint-9", "checkpoint-10"]


def test_damaged_best_weights_are_not_the_result(scripted, tmp_path: Path, capsys) -> None:
    scripted(1.0, 3.0, 2.0, 2.0, 1.0, 1.0)
    tiny.run(tmp_path, **SHORT)
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"")
    for _ in range(2):  # the second time nothing is left to train
        summary = tiny.run(tmp_path, **SHORT | {"max_steps": 12})
        told = f"skipping {tmp_path / 'checkpoint-4'}, the best: model.safetensors has 0 bytes instead of"
        assert told in capsys.readouterr().out
        assert tiny.weights(tmp_path) == tiny.weights(tmp_path / "checkpoint-12")
        assert (summary.best, summary.best_step) == (None, None)
        assert "| validation |" not in (tmp_path / "README.md").read_text()
        assert manifest.read(tmp_path)["best_step"] is None
        assert json.loads((tmp_path / "trainer_state.json").read_text())["best_metric"] is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run: nothing can be written there \(Not a directory\)"):
        tiny.run(tmp_path / "file" / "run")


def test_without_evaluation_the_last_weights_are_the_result(tmp_path: Path) -> None:
    summary = tiny.run(tmp_path, **SHORT | {"max_steps": 3, "evaluate_every": None})
    assert (summary.best, summary.best_step) == (None, None)
    assert tiny.weights(tmp_path) == tiny.weights(tmp_path / "checkpoint-3")


def test_patience_runs_out_and_can_be_given_back(scripted, tmp_path: Path, capsys) -> None:
    scripted(1.0, 3.0, 2.0, 3.0, 9.0)
    summary = tiny.run(tmp_path, **SHORT, patience=2)
    assert (summary.ended, summary.steps, summary.best_step) == ("early", 8, 4)
    assert tiny.run(tmp_path, **SHORT, patience=2).ended == "before"
    leave(summary)
    assert "finished: no new best for as many evaluations as train.patience allows" in capsys.readouterr().out
    summary = tiny.run(tmp_path, **SHORT, patience=3)
    assert (summary.ended, summary.resumed_from, summary.best_step) == ("complete", 8, 10)


@pytest.mark.parametrize(
    ("values", "patience", "out"),
    [
        ([], 1, False),
        ([1], 1, False),
        ([1, 1], 1, True),
        ([1, 2], 1, False),
        ([3, 1, 2], 2, True),
        ([3, 1], None, False),
    ],
)
def test_patience_by_hand(values, patience, out) -> None:
    history = [entry for value in values for entry in ({"loss": 1.0}, {"eval_bleu": value})]
    assert out_of_patience(history, "eval_bleu", patience) is out


def test_the_validation_score_is_that_of_greedy_texts() -> None:
    model = tiny.new_model().eval()
    with torch.no_grad():
        model.shared.weight.mul_(3)  # surer of itself, so that it writes more than one kind of token
    references = [f"{text} drei" for text in tiny.pairs(4)["target"]]
    one = Validation(
        model, tiny.TOKENIZER, tiny.VALIDATION, references, metric="rouge", max_new_tokens=12, batch_size=3
    )
    batch = tiny.TOKENIZER(list(tiny.pairs(4)["source"]), return_tensors="pt", padding=True)
    with torch.no_grad():
        written = model.generate(**batch, max_new_tokens=12, do_sample=False)
        texts = tiny.TOKENIZER.batch_decode(written, skip_special_tokens=True)
        labels = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(ids) for ids in tiny.VALIDATION["labels"]], batch_first=True, padding_value=-100
        )
        loss = model(**batch, labels=labels).loss.item()
    found = one(nullcontext())
    assert found["eval_loss"] == pytest.approx(loss, rel=1e-5)
    expected = scoring.score("rouge", texts, references).scores
    assert {f"eval_{name}": pytest.approx(value) for name, value in expected.items()} == {
        name: value for name, value in found.items() if name != "eval_loss"
    }
    assert one.headline == "eval_rougeLsum"


def test_with_exits_every_one_of_them_is_validated() -> None:
    model = tiny.new_model(num_layers=3).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.shared.weight.mul_(3)
        for block in model.decoder.block:
            for weight in block.parameters():
                if weight.dim() == 2:
                    weight.add_(torch.randn(weight.shape, generator=generator) * 0.5)
    shortened = {layer: copy.deepcopy(model) for layer in (1, 2, 3)}
    for layer, short in shortened.items():
        short.decoder.block = short.decoder.block[:layer]
    inputs = tiny.TOKENIZER(list(tiny.pairs(4)["source"]), return_tensors="pt", padding=True)
    texts = {
        layer: tiny.TOKENIZER.batch_decode(
            short.generate(**inputs, max_new_tokens=12, do_sample=False, use_cache=False), skip_special_tokens=True
        )
        for layer, short in shortened.items()
    }
    references = [*texts[3][:2], texts[2][2], "drei"]
    expected = [scoring.score("rouge", texts[layer], references).scores["rougeLsum"] for layer in (1, 2, 3)]
    assert expected == sorted(set(expected))
    arguments = {"metric": "rouge", "max_new_tokens": 12, "batch_size": 3}
    one = Validation(model, tiny.TOKENIZER, tiny.VALIDATION, references, exits={3: 3, 1: 2, 2: 1}, **arguments)
    found = one(nullcontext())
    assert [found[f"eval_{part}rougeLsum"] for part in ("layer1_", "layer2_", "")] == pytest.approx(expected)
    assert one.headline == "eval_exits_rougeLsum"
    assert found["eval_exits_rougeLsum"] == pytest.approx((2 * expected[0] + expected[1] + 3 * expected[2]) / 6)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_shows_a_bar(rank, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(validation, "gather_object", lambda share: 2 * share)
    lengths = {"metric": "bleu", "max_new_tokens": 2, "batch_size": 2}
    shared = {"rank": rank, "processes": 2}
    Validation(tiny.new_model().eval(), tiny.TOKENIZER, tiny.VALIDATION, None, **lengths, **shared)(nullcontext())
    assert ("validation" in capsys.readouterr().err) == (rank == 0)


def test_a_shallow_decoder_can_be_trained(tmp_path: Path) -> None:
    model = tiny.new_model(num_layers=2, num_decoder_layers=1)
    assert tiny.run(tmp_path, model, max_steps=2, evaluate_every=2).steps == 2


def test_batches_by_tokens_resume_exactly(tmp_path: Path) -> None:
    changes = {"tokens_per_batch": 90, "accumulation": 1, "evaluate_every": None}
    tiny.run(tmp_path / "whole", **changes, max_steps=12)
    for steps in (5, 12):
        tiny.run(tmp_path / "parts", **changes, max_steps=steps)
    last = "checkpoint-12"
    assert tiny.weights(tmp_path / "whole" / last) == tiny.weights(tmp_path / "parts" / last)
    lengths = [len(a) + len(b) for a, b in zip(tiny.TRAIN["input_ids"], tiny.TRAIN["labels"], strict=True)]
    assert sum(lengths) / 90 < 12, "the run must cross the end of an epoch"


def test_every_epoch_has_its_own_order_also_after_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []
    real = MicroBatches.__iter__

    def spy(self):
        epochs.append(self.epoch)
        return real(self)

    monkeypatch.setattr(MicroBatches, "__iter__", spy)
    tiny.run(tmp_path, max_steps=12, evaluate_every=None)  # 44 examples are 5 updates of 8
    tiny.run(tmp_path, max_steps=16, evaluate_every=None)
    assert epochs == [0, 1, 2, 2, 3]


def test_random_states_are_put_back() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), torch.rand(()).item()]

    with preserved_random_state(torch.device("cpu")):
        inside = draw()
    assert draw() == inside


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("inverse_sqrt", [0.5, 1.0, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5]),
    ],
)
def test_schedules(schedule, expected, tmp_path: Path) -> None:
    changes = {"max_steps": 6, "evaluate_every": None, "log_every": 1, "accumulation": 1}
    tiny.run(tmp_path, schedule=schedule, warmup_steps=2, learning_rate=1.0, **changes)
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in history if "learning_rate" in entry]
    assert rates[0] == 0  # the rate of the update just made; the first one is made at 0
    assert rates[1:] == pytest.approx(expected)


def test_too_little_data_and_too_many_pieces_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"44 rows to train on, too few for one batch: lower train\.batch_size \(45\)"):
        tiny.run(tmp_path, batch_size=45)
    with pytest.raises(UserError, match=r"44 rows .*: lower train\.accumulation \(45\)"):
        tiny.run(tmp_path, tokens_per_batch=1000, accumulation=45)
    with pytest.raises(UserError, match=r"train\.batch_size=2 cannot be cut into train\.accumulation=4 pieces"):
        tiny.run(tmp_path, batch_size=2, accumulation=4)


def test_tracking_never_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.setenv(name, "before")
    asked = itertools.count()
    monkeypatch.setattr(wandb, "login", lambda prompt: next(asked) if prompt else False)
    with tracking.tracked("offline", tmp_path):
        told = [os.environ[f"WANDB_{name}"] for name in ("MODE", "DIR", "PROJECT", "NAME")]
        assert told == ["offline", str(tmp_path), "before", "before"]
    with pytest.raises(UserError, match=r"train\.wandb=online: not logged in"), tracking.tracked("online", tmp_path):
        pass
    assert next(asked) == 0
    assert os.environ["WANDB_DIR"] == "before"


def test_each_training_of_a_process_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    real, started = wandb.init, []

    def watching(**given):
        run = real(**given)
        started.append((run.project, run.name, run.id))
        return run

    monkeypatch.setattr(wandb, "init", watching)
    for name in ("first", "second"):
        tiny.run(tmp_path / name, max_steps=2, evaluate_every=None, wandb="offline")
        assert len(list((tmp_path / name).glob("wandb/offline-run-*"))) == 1
    assert [run[:2] for run in started] == [("bild", "first"), ("bild", "second")]
    assert started[0][2] != started[1][2]
    assert wandb.run is None
    assert not [name for name in os.environ if name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_the_machine_does_not_have_is_one_line(tmp_path: Path) -> None:
    for change, told in (({"device": "cuda"}, "no usable GPU"), ({"bf16": True}, "does not compute in bfloat16")):
        with pytest.raises(UserError, match=told):
            training_arguments(dataclasses.replace(tiny.SETTINGS, **change), tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_bfloat16_on_a_gpu_keeps_float32_weights(tmp_path: Path) -> None:
    tiny.run(tmp_path, device="cuda", bf16=True, max_steps=4, evaluate_every=2)
    import safetensors.torch

    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
