"""How a model is trained: every number that the user may set, checked before work starts.

Knows names and ranges; knows nothing about models, data or the trainer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.cli import UserError

# Schedules that depend on the number of steps, so that this cannot be raised later without changing the past.
DECAYING = ("linear", "cosine")
SCHEDULES = ("constant", "inverse_sqrt", *DECAYING)
WANDB = ("disabled", "offline", "online")
# What may change between two starts in the same folder: it does not touch the weights.
FREE = (
    "max_steps",
    "log_every",
    "evaluate_every",
    "evaluate_batch_size",
    "patience",
    "save_every",
    "keep",
    "wandb",
    "device",
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The ``train`` node of a config. A step is one optimizer update."""

    max_steps: int
    batch_size: int  # examples per step, over all processes and accumulated pieces
    accumulation: int  # pieces that a process computes one after the other per step: less memory, same result
    tokens_per_batch: int | None  # most tokens per step, padding and both sides counted, in place of batch_size
    group_by_length: bool  # batches of similar lengths: less padding
    learning_rate: float
    scale_parameter: bool  # Adafactor's rate is relative to each weight's size: what training from scratch wants
    schedule: str  # "constant", "inverse_sqrt", "linear" or "cosine", each after the warm-up
    warmup_steps: int  # steps over which the learning rate rises from 0
    label_smoothing: float
    bf16: str | bool  # "auto" = where the GPU has it
    seed: int
    device: str  # "auto" = a GPU if there is one; or "cpu"
    log_every: int  # steps
    evaluate_every: int  # steps between evaluations on the validation split
    evaluate_rows: int | None  # validation examples that are decoded; None = all
    evaluate_batch_size: int
    patience: int | None  # evaluations without a new best after which training stops; None = never
    save_every: int  # steps between checkpoints; a new best is saved as well
    keep: int  # checkpoints kept, the best not counted
    wandb: str  # "disabled", "offline" or "online"

    def __post_init__(self) -> None:
        at_least_1 = ["max_steps", "batch_size", "accumulation", "log_every", "evaluate_every", "save_every", "keep"]
        at_least_1 += ["tokens_per_batch", "evaluate_rows", "evaluate_batch_size", "patience"]
        for name in at_least_1:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"train.{name}={value}: needs at least 1")
        if not self.learning_rate > 0:
            raise UserError(f"train.learning_rate={self.learning_rate}: needs a number above 0, such as 1e-4")
        if self.warmup_steps < 0:
            raise UserError(f"train.warmup_steps={self.warmup_steps}: needs 0 (no warm-up) or more")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"train.label_smoothing={self.label_smoothing}: needs a number from 0 up to, not with, 1")
        for name, choices in (("schedule", SCHEDULES), ("wandb", WANDB), ("bf16", ("auto", True, False))):
            if getattr(self, name) not in choices:
                raise UserError(f"train.{name}={getattr(self, name)}: choose one of {', '.join(map(str, choices))}")

    def identity(self) -> dict[str, Any]:
        """What decides the weights, under the names that the user gives it."""
        values = {f"train.{name}": value for name, value in asdict(self).items() if name not in (*FREE, "seed")}
        values["seed"] = self.seed
        if self.schedule in DECAYING:
            values["train.max_steps"] = self.max_steps
        return values
