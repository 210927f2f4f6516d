"""From a config to everything that an alignment works with, checked before any work starts.

Knows the config's keys; the other files of the package do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from omegaconf import DictConfig

from bild.policies.base import Policy
from pipelines.alignment.distill import Distillation
from pipelines.alignment.models import Models
from pipelines.alignment.outputs import Processes
from pipelines.alignment.run import Teacher
from pipelines.alignment.settings import AlignSettings
from pipelines.cli import UserError, check_path, check_whole, counted
from pipelines.data.task import Task, refuse_prompt
from pipelines.decoding.config import check_seed_and_engine, instantiated
from pipelines.decoding.pair import chosen_device, chosen_dtype
from pipelines.evaluation import provenance
from pipelines.models.fingerprint import model_hash
from pipelines.models.loading import LoadedModel, Model
from pipelines.training import checkpoints
from pipelines.training.identity import start_identity
from pipelines.training.loss import Objective
from pipelines.training.processes import count, say
from pipelines.training.settings import TrainSettings

VALIDATION = "validation"  # the split that training and report look at


@dataclass(frozen=True, kw_only=True)
class AlignmentParts:
    """What one alignment consists of."""

    task: Task
    pairs: Dataset
    """source, target; the large model answers the sources"""
    held_out: dict[str, Dataset]
    """the same of the validation split, by the folder of the outputs: what training looks at, what the report adds"""
    settings: AlignSettings
    training: TrainSettings
    policy: Policy
    models: Models
    teacher: Teacher
    start: LoadedModel
    """the small model that is trained"""
    provenance: dict[str, Any]
    """of the code that does the work"""


def assemble(config: DictConfig) -> AlignmentParts:
    """Instantiate, load and check; prints a line for the task and for each model.

    Raises:
        UserError: a value out of range, data or a model that cannot be loaded, or two tokenizers.
    """
    check_whole("batch_size", config.batch_size)
    check_path("out", config.out)
    check_path("results", config.results)
    check_seed_and_engine(config)
    device, dtype = chosen_device(config.device), chosen_dtype(config.dtype)
    if config.split == VALIDATION:
        raise UserError("split=validation: those examples are for the comparison before and after; choose train")
    small = instantiated(config, "small")
    if not isinstance(small, Model):
        raise UserError(f"small={small.name}: has no weights that could be aligned; choose a model")
    names = ("task", "align", "train", "bild", "large")
    task, settings, training, policy, large = (instantiated(config, name) for name in names)
    refuse_prompt(task)
    if not (policy.uses_large and policy.uses_small):
        raise UserError("bild: alignment is measured with a policy that uses both models; choose bild=big_little")
    if settings.distills and training.exits is not None:
        raise UserError("train.exits with align.method=distill: only whole models learn distributions; set it to null")
    if settings.distills and training.label_smoothing > 0:
        raise UserError(
            f"train.label_smoothing={training.label_smoothing} with align.method=distill: the large model's "
            "distributions are not smoothed; set it to 0 or choose align.method=sequence"
        )
    if small.aligned is True:
        raise UserError("small.aligned=true: alignment starts before that; choose align.init=finetuned or pretrained")
    if small.shortlist:
        raise UserError("small.shortlist=true: alignment makes the list; set it to false here, and use it afterwards")
    made = provenance.collect(config)
    pairs = task.load(config.split, config.limit)
    training.check_rows(len(pairs) * settings.samples, count())
    held_out = held_out_parts(task, config.limit, training.evaluate_rows, settings.report_limit)
    say(f"task   {task.name}, {config.split} split, {counted(len(pairs), 'example')}")
    models = Models(
        large=large,
        small=small,
        task_name=task.name,
        init=settings.init,
        pairs=pairs,
        seed=training.seed,
        device=device,
        dtype=dtype,
    )
    processes = Processes.joined(on_cpu=device.type == "cpu")
    loaded, start = models.pair()
    say(f"large  {loaded.note}")
    say(f"small  {start.note}")
    return AlignmentParts(
        task=task,
        pairs=pairs,
        held_out=held_out,
        settings=settings,
        training=training,
        policy=policy,
        models=models,
        teacher=Teacher(large=loaded, engine=config.engine, batch_size=config.batch_size, processes=processes),
        start=start,
        provenance=made,
    )


def objective(config: DictConfig, parts: AlignmentParts) -> Objective | None:
    """What the training minimizes; None = cross-entropy."""
    settings, start = parts.settings, parts.start
    if not settings.distills:
        return None
    return Distillation(
        parts.teacher.large.model,
        start.model,
        start.tokenizer,
        settings.chosen_divergence(),
        student_fraction=settings.student_fraction,
        max_new_tokens=settings.max_new_tokens(parts.task.target_length),
        engine=config.engine,
        seed=parts.training.seed,
    )


def method_identity(config: DictConfig, parts: AlignmentParts) -> dict[str, Any]:
    """What decides the weights beside data, start and training settings, under the names that the user gives it."""
    settings = parts.settings
    keys = {f"align.{name}": value for name, value in settings.method_fields().items()}
    if settings.distills:
        large = parts.teacher.large.model
        keys |= {"large": model_hash(large), "dtype": str(large.dtype).removeprefix("torch.")}
        if settings.student_fraction > 0:
            longest = settings.max_new_tokens(parts.task.target_length)
            keys |= {"align.generation_max_length": longest, "engine": config.engine}
    return keys


def refuse_other_training(out: Path, config: DictConfig, parts: AlignmentParts) -> None:
    """Say now, not after hours of generation, that ``out`` holds a training that this one cannot go on with.

    The trainer itself compares everything, once it knows the outputs.
    """
    known = {
        "training rows": len(parts.pairs) * parts.settings.samples,
        "validation rows": len(parts.held_out[VALIDATION]),
        **method_identity(config, parts),
        **start_identity(parts.start.model, parts.start.tokenizer),
        **parts.training.identity(),
    }
    checkpoints.resumable(out, known, parts.training.max_steps, whole=False)


def held_out_parts(
    task: Task, limit: int | None, evaluate_rows: int | None, report_limit: int | None
) -> dict[str, Dataset]:
    """The validation examples that the large model answers, by the folder of its outputs (None = all).

    Those that training looks at stand alone, so that a longer report asks for further outputs and no other training.
    """
    wanted = None if evaluate_rows is None or report_limit is None else max(evaluate_rows, report_limit)
    given = [rows for rows in (limit, wanted) if rows is not None]
    rows = task.load(VALIDATION, min(given, default=None))
    seen = len(rows) if evaluate_rows is None else min(evaluate_rows, len(rows))
    parts = {VALIDATION: rows.select(range(seen))}
    if seen < len(rows):
        parts[f"{VALIDATION}-{seen}-{len(rows)}"] = rows.select(range(seen, len(rows)))
    return parts
