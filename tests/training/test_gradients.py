"""An update is the same however it is cut up: into accumulated pieces, over processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import Trainer

from tests.launch import launched
from tests.training import tiny


def exact_run(out: Path, accumulation: int, layers: int = 1, **settings: object) -> None:
    """Five updates of 8 rows with labels of 2 to 7 tokens, in float64 without dropout."""
    model = tiny.new_model(torch.float64, dropout_rate=0.0, num_layers=layers)
    changes = {"accumulation": accumulation, "max_steps": 5, "learning_rate": 1e-2, "log_every": 1, **settings}
    if not torch.cuda.is_available():
        changes["device"] = "auto"  # several processes must find each other also where nobody says that there is no GPU
    tiny.run(out, model, group_by_length=False, evaluate_every=None, **changes)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "checkpoint-5" / "model.safetensors")


def logged(out: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every update."""
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [(row["loss"], row["grad_norm"]) for row in history if "loss" in row]


def difference(one: Path, other: Path) -> float:
    """The largest between two weights."""
    theirs = weights(other)
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in weights(one).items())


def assert_same(one: Path, other: Path) -> None:
    assert difference(one, other) < 1e-12
    # Adafactor alone would forgive a wrong scale. The trainer adds losses up in float32.
    np.testing.assert_allclose(logged(one), logged(other), rtol=1e-5)


@pytest.fixture(scope="module")
def in_one_piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    exact_run(out, accumulation=1)
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float64}
    assert len(logged(out)) == 5
    return out


def test_labels_are_of_unequal_length() -> None:
    lengths = [len(labels) for labels in tiny.TRAIN["labels"]]
    assert max(lengths) >= 3 * min(lengths)


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulated_pieces_make_the_same_update(accumulation, in_one_piece, tmp_path) -> None:
    exact_run(tmp_path, accumulation)
    assert_same(tmp_path, in_one_piece)


def test_two_processes_make_the_same_update(in_one_piece, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with launched(tmp_path, "tests.training.two_processes", "exact", str(out)) as both:
        assert both.wait(280) == 0, both.printed()
    assert_same(out, in_one_piece)
    assert len(list((out / "checkpoint-5").glob("rng_state_*.pth"))) == 2
    one_printed_line = [line for line in both.printed().splitlines() if "step 5/5  loss" in line]
    assert len(one_printed_line) == 1


def test_the_trainer_alone_would_get_it_wrong(in_one_piece, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loss function is there for; if this fails, transformers has mended it and the function can go."""

    def without_loss_function(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs, num_items_in_batch=num_items_in_batch).loss

    monkeypatch.setattr(Trainer, "compute_loss", without_loss_function)
    exact_run(tmp_path, accumulation=4)
    assert difference(tmp_path, in_one_piece) > 1e-3
    assert logged(tmp_path)[0][0] > 2 * logged(in_one_piece)[0][0]
