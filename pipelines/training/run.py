"""One training, from its start or from where it stopped, to a finished checkpoint.

Knows the folder of a run and when it is done; knows nothing about where models and data come from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

from pipelines.data.task import Task
from pipelines.files import sole_writer
from pipelines.models import manifest
from pipelines.training import checkpoints, processes
from pipelines.training.build import build_trainer
from pipelines.training.card import model_card
from pipelines.training.final import write_final
from pipelines.training.identity import start_identity
from pipelines.training.interrupt import Interrupt, InterruptError
from pipelines.training.loss import Objective
from pipelines.training.patience import out_of_patience
from pipelines.training.settings import TrainSettings
from pipelines.training.tracking import tracked
from pipelines.training.trainer import Trainer
from pipelines.training.weights import load_weights


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder for the length of the block; the main process holds it for all of this one.

    Raises:
        UserError: another run is writing there, or nothing can be written there.
    """
    with sole_writer(out) if processes.is_main() else nullcontext():
        yield


@dataclass(frozen=True)
class TrainSummary:
    """What a training came to."""

    out: Path
    steps: int  # done so far, over all starts
    max_steps: int
    metric: str  # name of the validation metric
    best: float | None  # its best value; None without an evaluation
    best_step: int | None
    seconds: float  # of this start
    resumed_from: int | None  # step, None = from the beginning
    ended: str  # "complete", "early" (out of patience), "signal" (saved and left), "before" (nothing was left to do)
    signal: int | None  # its number, if one ended it


def train(
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: Dataset,
    validation_dataset: Dataset,
    task: Task,
    settings: TrainSettings,
    out: str | Path,
    identity: Mapping[str, Any],
    objective: Objective | None = None,
    references: Sequence[str] | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> TrainSummary:
    """Train until ``settings.max_steps``, going on from the last complete checkpoint in ``out``.

    Args:
        model: the starting point; its weights are changed.
        train_dataset, validation_dataset: encoded, see ``pipelines.data.encode``.
        out: folder of the run; the finished model lies in it, checkpoints in ``checkpoint-{step}`` inside.
        identity: what decides the weights beside ``settings``: JSON-like values by the names the user gives them.
        objective: what is minimized; None = cross-entropy as ``settings`` say.
        references: validation targets as text; None = ``validation_dataset``'s labels read back.
        notes: text files to keep beside the weights, by name.

    Raises:
        UserError: ``out`` is in use, cannot be written, holds another run or no usable checkpoint; the disk is full; or
            there is too little data.
    """
    started = time.monotonic()
    out = Path(out)
    identity = _as_in_a_manifest({**identity, **start_identity(model, tokenizer), **settings.identity()})
    with held(out), tracked(settings.wandb, out):
        checkpoint = checkpoints.resumable(out, identity, settings.max_steps)
        interrupt = Interrupt(processes.count(), announce=processes.is_main())
        trainer, validation = build_trainer(
            model,
            tokenizer,
            train_dataset,
            validation_dataset,
            references,
            task=task,
            settings=settings,
            objective=objective,
            out=out,
            identity=identity,
            notes=notes,
            interrupt=interrupt,
        )
        with interrupt.caught():
            try:
                _advance(trainer, checkpoint, settings, validation.headline)
                ended = _ending(trainer, settings, interrupt)
            except InterruptError:
                ended = "signal"
        if ended != "signal" and processes.is_main():
            ended = _finish(trainer, out, identity, task, notes, ended)
    trainer.accelerator.wait_for_everyone()
    state = trainer.state
    return TrainSummary(
        out=out,
        steps=state.global_step,
        max_steps=settings.max_steps,
        metric=validation.headline.removeprefix("eval_"),
        best=state.best_metric,
        best_step=state.best_global_step,
        seconds=time.monotonic() - started,
        resumed_from=None if checkpoint is None else checkpoint.step,
        ended=ended,
        signal=interrupt.received,
    )


def _advance(trainer: Trainer, checkpoint: checkpoints.Checkpoint | None, settings: TrainSettings, metric: str) -> None:
    """Do what is left of the run: an evaluation that was interrupted, then the steps."""
    if checkpoint is None:
        trainer.train()
        return
    processes.say(f"going on from {checkpoint.folder}")
    trainer.adopt(checkpoint)
    if _owes_evaluation(trainer.state, settings, metric):
        trainer.settle()
    patience_lost = out_of_patience(trainer.state.log_history, metric, settings.patience)
    if checkpoint.step < settings.max_steps and not patience_lost:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder))


def _owes_evaluation(state: TrainerState, settings: TrainSettings, metric: str) -> bool:
    step, every = state.global_step, settings.evaluate_every
    due = every is not None and (step % every == 0 or step >= settings.max_steps)
    return due and not any(metric in entry and entry["step"] == step for entry in state.log_history)


def _ending(trainer: Trainer, settings: TrainSettings, interrupt: Interrupt) -> str:
    if interrupt.received is not None:
        return "signal"
    return "complete" if trainer.state.global_step >= settings.max_steps else "early"


def _finish(
    trainer: Trainer,
    out: Path,
    identity: Mapping[str, Any],
    task: Task,
    notes: Mapping[str, str],
    ended: str,
) -> str:
    """Write the best weights into ``out``, unless they are there; returns how the run ended."""
    state, best = trainer.state, trainer.state.best_global_step
    about = {"step": state.global_step, "best_step": best, "identity": dict(identity)}
    try:
        there = manifest.check(out)
    except manifest.IncompleteError:
        there = {}
    if about.items() <= there.items():
        return "before"
    if best not in (None, state.global_step) and not _take_best(trainer, out / f"{checkpoints.PREFIX}{best}"):
        state.best_metric = state.best_global_step = state.best_model_checkpoint = about["best_step"] = None
    facts = {"task": f"{task.name} (version {task.version})", "steps": state.global_step}
    if state.best_metric is not None:
        metric = trainer.args.metric_for_best_model.removeprefix("eval_")
        facts["validation"] = f"{metric} {state.best_metric:.2f} after {state.best_global_step} steps"
    card = model_card(out.name, f"Trained on the task {task.name} with Adafactor.", facts, identity)
    texts = {**notes, "README.md": card, checkpoints.STATE: _json(state)}
    write_final(out, trainer.model, trainer.processing_class, texts, about)
    return ended


def _take_best(trainer: Trainer, folder: Path) -> bool:
    """Load the best weights; if they are damaged the last ones stay, of which no score is told, and a line says so."""
    try:
        manifest.check(folder)
    except manifest.IncompleteError as error:
        processes.say(f"skipping {folder}, the best: {error}; the last weights are the result")
        return False
    load_weights(trainer.model, folder)
    return True


def _as_in_a_manifest(identity: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(identity))  # where a tuple comes back as a list


def _json(state: TrainerState) -> str:
    return json.dumps(asdict(state), indent=2, sort_keys=True) + "\n"
