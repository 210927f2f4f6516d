"""Seq2SeqTrainer with the parts replaced that this project cannot use: batches, evaluation, checkpoints.

Knows the trainer's inner workings (transformers 5.23); knows nothing about tasks, metrics or configs.
"""

from __future__ import annotations

import logging
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, Seq2SeqTrainer, TrainerCallback, TrainerState
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import TrainOutput

from pipelines.files import replace_folder
from pipelines.models import manifest
from pipelines.training import checkpoints
from pipelines.training.batches import MicroBatches
from pipelines.training.interrupt import Interrupt, InterruptError
from pipelines.training.loss import Objective
from pipelines.training.progress import Progress
from pipelines.training.weights import drafting, load_weights, save_model


class Trainer(Seq2SeqTrainer):
    """Trains on given batches, evaluates with a given function, writes checkpoints that are whole or do not count.

    Args:
        objective: what is minimized.
        optimizer: its class and arguments.
        batches: what this process computes, in order.
        validate: returns metrics named ``eval_*``; called on all processes, with a context for what each does alone.
        identity: kept in every checkpoint's manifest.
        notes: text files kept in every checkpoint, by name.
        interrupt: tells when to save and leave.
        keep: checkpoints kept, the best not counted.
        progress: in place of the parent's bar.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        optimizer: tuple[type[torch.optim.Optimizer], dict[str, Any]],
        batches: MicroBatches,
        validate: Callable[[AbstractContextManager[None]], dict[str, float]],
        identity: dict[str, Any],
        notes: Mapping[str, str],
        interrupt: Interrupt,
        keep: int,
        progress: Progress,
        **arguments: Any,
    ) -> None:
        super().__init__(compute_loss_func=objective, **arguments)
        self._objective = objective
        self.optimizer_cls_and_kwargs = optimizer  # Seq2SeqTrainer does not pass this argument of Trainer's on
        self._batches = batches
        self._validate = validate
        self._identity = identity
        self._notes = notes
        self._interrupt = interrupt
        self._keep = keep
        self._progress = progress
        self._settled: TrainerState | None = None
        self.remove_callback(ProgressCallback)
        self.add_callback(progress)
        self.add_callback(_EpochOrder(batches))
        self.add_callback(_SaveOnSignal(interrupt))

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        try:
            return super().train(*args, **kwargs)
        finally:
            self._progress.close()

    def get_train_dataloader(self) -> DataLoader:
        # Not prepared by accelerate: the batches are already this process's own.
        return DataLoader(
            self._remove_unused_columns(self.train_dataset, description="training"),
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            generator=torch.Generator(),  # its own, so that making an iterator draws nothing from the global one
        )

    # ---- loss

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        # Before the parent counts the labels of the update.
        step = self.state.global_step
        prepared = (self._objective.prepare(batch, step) for batch in epoch_iterator)
        with self.accelerator.autocast():
            return super().get_batch_samples(prepared, *args, **kwargs)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        # The parent hands the labels on to the objective as they are.
        inputs = {**inputs, "labels": self._objective.target(inputs)}
        with self._objective.listening():
            return super().compute_loss(model, inputs, *args, **kwargs)

    # ---- evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the current weights. Leaves random states as they were: how often it runs changes no weight.

        Raises:
            InterruptError: a signal arrived.
        """
        with preserved_random_state(self.args.device), self.accelerator.autocast():
            self.model.eval()
            try:
                metrics = self._validate(self._interrupt.droppable(self.args.device))
            finally:
                self.model.train()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def adopt(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Take over the weights and the history of a checkpoint."""
        load_weights(self.model, checkpoint.folder)
        self.state = TrainerState.load_from_json(str(checkpoint.folder / checkpoints.STATE))

    def settle(self) -> None:
        """Do the evaluation that the adopted checkpoint owes: its step was done, then a signal ended the run."""
        self._determine_best_metric(self.evaluate(), None)
        self._settled = self.state

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = super()._determine_best_metric(metrics, trial)
        if better:
            self.control.should_save = True
        return better

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except InterruptError:
            # The step is done, only its evaluation is not: the checkpoint owes it, and a resumed run settles it first.
            self.control.should_evaluate = self.control.should_save = False
            self.control.should_training_stop = True
            self._save_checkpoint(self.model, None)

    # ---- checkpoints

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint under another name, seal it and rename it: it is there whole or not at all.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        out = Path(self.args.output_dir)
        final, draft = out / f"{checkpoints.PREFIX}{self.state.global_step}", out / ".checkpoint"
        with drafting(final, draft):
            self._write_checkpoint(draft)
            if self.args.should_save:
                replace_folder(draft, final)
        if self.args.should_save:
            checkpoints.rotate(out, self._keep)

    def _write_checkpoint(self, folder: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.store_flos()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            save_model(self.model, self.processing_class, folder, self._notes)
            self.state.save_to_json(str(folder / checkpoints.STATE))
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            manifest.write(folder, step=self.state.global_step, identity=self._identity)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # The parent's would add training_args.bin, a pickle.
        folder = self.args.output_dir if output_dir is None else output_dir
        save_model(self.model, self.processing_class, Path(folder), self._notes)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        load_weights(self.model if model is None else model, Path(resume_from_checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        name = "rng_state.pth" if self.args.world_size == 1 else f"rng_state_{self.args.process_index}.pth"
        if checkpoint is not None and not (Path(checkpoint) / name).is_file():
            tqdm.write(f"{checkpoint} is of another number of processes: dropout is drawn anew from the seed")
        super()._load_rng_state(checkpoint)

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        warns = logging.getLogger("transformers.trainer_utils")  # of cadences that differ, which is allowed here
        warns.disabled = True
        try:
            position = super()._init_training_state(max_steps, *args)
        finally:
            warns.disabled = False
        self.state.compute_steps(self.args, max_steps)  # cadences as asked for now, not as in the checkpoint
        if self._settled is not None:
            for name in ("log_history", "best_metric", "best_global_step"):
                setattr(self.state, name, getattr(self._settled, name))
        return position


class _EpochOrder(TrainerCallback):
    """Tells the batches which epoch comes next. The step alone decides it, so that a resumed run agrees."""

    def __init__(self, batches: MicroBatches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        per_epoch = math.ceil(len(self._batches) / args.gradient_accumulation_steps)
        self._batches.epoch = state.global_step // per_epoch


class _SaveOnSignal(TrainerCallback):
    """After a signal: save at the end of this step, without evaluating, and stop."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._interrupt.agreed(args.device):
            control.should_evaluate = False
            control.should_save = True
            control.should_training_stop = True


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Put the random states of torch, numpy and Python back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
