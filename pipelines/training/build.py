"""A trainer from settings: transformers' arguments, batches, loss, callbacks.

Knows how this project's settings are called in transformers; knows nothing about files or resuming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
)
from transformers.optimization import Adafactor

from pipelines.data.task import Task
from pipelines.training.batches import MicroBatches, Updates
from pipelines.training.exits import loss_of
from pipelines.training.interrupt import Interrupt
from pipelines.training.loss import IGNORED, Objective
from pipelines.training.patience import Patience
from pipelines.training.progress import Progress
from pipelines.training.settings import TrainSettings
from pipelines.training.tracking import REPORTERS
from pipelines.training.trainer import Trainer
from pipelines.training.validation import Validation

SCHEDULES = {"constant": "constant_with_warmup"}  # where transformers has another name


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: Dataset,
    validation_dataset: Dataset,
    references: Sequence[str] | None,
    *,
    task: Task,
    settings: TrainSettings,
    objective: Objective | None,
    out: Path,
    identity: dict[str, Any],
    notes: Mapping[str, str],
    interrupt: Interrupt,
) -> tuple[Trainer, Validation]:
    """The trainer of a run and the validation that it uses, ready to start or to resume."""
    arguments = training_arguments(settings, out)
    rows = len(validation_dataset) if settings.evaluate_rows is None else settings.evaluate_rows
    rows = min(rows, len(validation_dataset))
    validation = Validation(
        model,
        tokenizer,
        validation_dataset.select(range(rows)),
        None if references is None else references[:rows],
        metric=task.metric,
        max_new_tokens=task.target_length,
        batch_size=settings.evaluate_batch_size,
        exits=settings.exits,
        rank=arguments.process_index,
        processes=arguments.world_size,
    )
    arguments.metric_for_best_model = validation.headline
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=validation_dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=IGNORED),
        objective=loss_of(model, settings.exits, settings.label_smoothing) if objective is None else objective,
        optimizer=adafactor(settings),
        callbacks=[Patience(validation.headline, settings.patience)],
        batches=micro_batches(train_dataset, settings, arguments.process_index, arguments.world_size),
        validate=validation,
        identity=identity,
        notes=notes,
        interrupt=interrupt,
        keep=settings.keep,
        progress=Progress(),
    )
    return trainer, validation


def training_arguments(settings: TrainSettings, out: Path) -> Seq2SeqTrainingArguments:
    """transformers' name for each setting; no gradient clipping but Adafactor's own."""
    evaluates = settings.evaluate_every is not None
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(out),
        max_steps=settings.max_steps,
        gradient_accumulation_steps=settings.accumulation,
        optim="adafactor",
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        max_grad_norm=0.0,
        lr_scheduler_type=SCHEDULES.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup_steps,
        bf16=settings.computes_in_bf16(),
        seed=settings.seed,
        # Without a GPU this must be said: several processes would otherwise train apart, each on its own.
        use_cpu=not settings.uses_gpu(),
        average_tokens_across_devices=True,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.evaluate_every,
        greater_is_better=True,
        save_strategy="steps",
        save_steps=settings.save_every,
        logging_strategy="steps",
        logging_steps=settings.log_every,
        report_to=REPORTERS[settings.wandb],
        disable_tqdm=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs in one process would mean DataParallel; use accelerate
    return arguments


def adafactor(settings: TrainSettings) -> tuple[type[Adafactor], dict[str, Any]]:
    """Adafactor with an external learning rate, as the paper trains."""
    scaling = {"scale_parameter": settings.scale_parameter, "relative_step": False, "warmup_init": False}
    return Adafactor, {"lr": settings.learning_rate, "weight_decay": 0.0, **scaling}


def micro_batches(dataset: Dataset, settings: TrainSettings, rank: int, processes: int) -> MicroBatches:
    """This process's share of every update.

    Raises:
        UserError: an update cannot be cut into that many pieces, or there are fewer examples than one update needs.
    """
    settings.check_rows(len(dataset), processes)
    updates = Updates(
        token_counts(dataset),
        batch_size=settings.batch_size,
        tokens_per_batch=settings.tokens_per_batch,
        group_by_length=settings.group_by_length,
        parts=settings.accumulation * processes,
        seed=settings.seed,
    )
    return MicroBatches(updates, accumulation=settings.accumulation, rank=rank, processes=processes)


def token_counts(dataset: Dataset) -> np.ndarray:
    """Tokens of the source and the target of each example, (N, 2) int64, without making Python lists of them."""
    tables = dataset.with_format("arrow").iter(batch_size=10_000)
    counts = [[pc.list_value_length(table[side]) for side in ("input_ids", "labels")] for table in tables]
    return np.concatenate([np.stack([side.to_numpy() for side in pair], axis=1) for pair in counts])
