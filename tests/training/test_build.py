"""Every setting of a training reaches the trainer that is built of it."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Adafactor, DataCollatorForSeq2Seq

from pipelines.training import validation
from pipelines.training.batches import Updates
from pipelines.training.build import build_trainer
from pipelines.training.interrupt import Interrupt
from pipelines.training.trainer import Trainer
from pipelines.training.validation import Validation
from tests.training import tiny


def built(out: Path, **changes) -> tuple[Trainer, Validation]:
    """Trainer and validation of the tiny training; ``changes`` are settings or ``references``."""
    references = changes.pop("references", None)
    return build_trainer(
        tiny.new_model(**changes.pop("shape", {})),
        tiny.TOKENIZER,
        tiny.TRAIN,
        tiny.VALIDATION,
        references,
        task=tiny.TASK,
        settings=dataclasses.replace(tiny.SETTINGS, **changes),
        objective=None,
        out=out,
        identity={},
        notes={},
        interrupt=Interrupt(),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"group_by_length": False},
        {"group_by_length": True},
        {"group_by_length": False, "seed": 31},
        {"batch_size": 11, "accumulation": 3},
        {"tokens_per_batch": 90},
        {"tokens_per_batch": 150, "accumulation": 1, "seed": 31},
    ],
)
def test_the_batches_are_those_of_the_settings(changes, tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny.SETTINGS, **changes)
    lengths = [(len(row["input_ids"]), len(row["labels"])) for row in tiny.TRAIN]
    names = ("batch_size", "tokens_per_batch", "group_by_length", "seed")
    plan = {name: getattr(settings, name) for name in names} | {"parts": settings.accumulation}
    sampler = built(tmp_path, **changes)[0].get_train_dataloader().batch_sampler
    for epoch in (0, 1):
        expected = [
            piece.tolist()
            for update in Updates(lengths, **plan).epoch(epoch)
            for piece in np.array_split(update, settings.accumulation)
        ]
        sampler.epoch = epoch
        assert list(sampler) == expected


@pytest.mark.parametrize("exits", [None, {1: 1.0, 2: 3.0}])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_as_asked(smoothing, exits, tmp_path: Path) -> None:
    shape = {"num_layers": 2, "dropout_rate": 0.0}
    trainer, _ = built(tmp_path, label_smoothing=smoothing, exits=exits, shape=shape)
    model = trainer.model.eval()
    batch = DataCollatorForSeq2Seq(tiny.TOKENIZER, model=model)([tiny.TRAIN[row] for row in (0, 5)])
    with torch.no_grad():
        found = trainer.compute_loss(model, dict(batch))
        kept = {}
        first = model.decoder.block[0].register_forward_hook(lambda *call: kept.update(hidden=call[2][0]))
        logits = {2: model(**batch).logits}
        first.remove()
        hidden = model.decoder.final_layer_norm(kept["hidden"])
        logits[1] = model.lm_head(hidden * 16**-0.5 if model.config.scale_decoder_outputs else hidden)
        cross_entropy = {
            layer: F.cross_entropy(of.flatten(0, 1), batch["labels"].flatten(), label_smoothing=smoothing)
            for layer, of in logits.items()
        }
    expected = cross_entropy[2] if exits is None else (cross_entropy[1] + 3 * cross_entropy[2]) / 4
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("asked", "rows"), [(1, 1), (3, 3), (None, 4), (9, 4)])
def test_validation_sees_the_rows_that_were_asked_for(asked, rows, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = validation.decode_rows

    def spy(decoder, policy, inputs, batch_size, *rest):
        seen.append((list(inputs), batch_size, decoder.decoding.max_new_tokens))
        return real(decoder, policy, inputs, batch_size, *rest)

    monkeypatch.setattr(validation, "decode_rows", spy)
    references = ["eins", "zwei drei", "vier", "fünf sechs"]
    trainer, validate = built(tmp_path, evaluate_rows=asked, evaluate_batch_size=2, references=references)
    found = trainer.evaluate()
    assert seen == [(tiny.VALIDATION["input_ids"][:rows], 2, tiny.TASK.target_length)]
    first = tiny.VALIDATION.select(range(rows))
    lengths = {"metric": "bleu", "max_new_tokens": tiny.TASK.target_length, "batch_size": 4}
    alone = Validation(trainer.model.eval(), tiny.TOKENIZER, first, references[:rows], **lengths)
    assert found == pytest.approx(alone(nullcontext()))
    assert trainer.args.metric_for_best_model == validate.headline == "eval_bleu"


def test_arguments_are_the_settings(tmp_path: Path) -> None:
    asked = {"max_steps": 17, "accumulation": 4, "learning_rate": 0.03, "warmup_steps": 5, "seed": 31, "bf16": False}
    asked |= {"log_every": 6, "evaluate_every": 9, "save_every": 4, "schedule": "constant"}
    trainer, _ = built(tmp_path, **asked)
    arguments = trainer.args
    assert (arguments.max_steps, arguments.seed, arguments.bf16, arguments.use_cpu) == (17, 31, False, True)
    assert arguments.gradient_accumulation_steps == 4
    assert (arguments.learning_rate, arguments.warmup_steps) == (0.03, 5)
    assert arguments.lr_scheduler_type == "constant_with_warmup"
    assert (arguments.logging_steps, arguments.eval_steps, arguments.save_steps) == (6, 9, 4)
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.logging_strategy) == ("steps",) * 3
    assert built(tmp_path, evaluate_every=None)[0].args.eval_strategy == "no"


@pytest.mark.parametrize("scale_parameter", [False, True])
def test_the_optimizer_is_adafactor_with_the_rate_of_the_settings(scale_parameter, tmp_path: Path) -> None:
    trainer, _ = built(tmp_path, scale_parameter=scale_parameter, learning_rate=0.03)
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is Adafactor
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(trainer.model.parameters()))
    expected = {"lr": 0.03, "scale_parameter": scale_parameter, "relative_step": False, "warmup_init": False}
    expected |= {"clip_threshold": 1.0, "weight_decay": 0.0, "beta1": None}
    for group in optimizer.param_groups:
        assert {name: group[name] for name in expected} == expected
    assert trainer.args.max_grad_norm == 0, "Adafactor clips, and nothing else does"


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's environment is put back afterwards."""
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.setenv(name, "before")


@pytest.mark.usefixtures("tracked")
def test_a_run_offline_is_tracked_in_its_folder(tmp_path: Path) -> None:
    import wandb

    tiny.run(tmp_path, wandb="offline", max_steps=2, evaluate_every=None, log_every=1)
    wandb.teardown()  # waits until its process has written everything
    [written] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/global_step" in written.read_bytes()


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize(("mode", "reports"), [("disabled", []), ("offline", ["wandb"])])
def test_tracking_is_what_was_asked_for(mode, reports, tmp_path: Path) -> None:
    assert built(tmp_path, wandb=mode)[0].args.report_to == reports
