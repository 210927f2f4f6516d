"""How a model is trained: every number that the user may set, checked before work starts.

Knows names, ranges and what this machine can do; knows nothing about models, data or the trainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pipelines.cli import UserError, check_whole, counted

# Schedules that depend on the number of steps, so that this cannot be raised later without changing the past.
DECAYING = ("linear", "cosine")
SCHEDULES = ("constant", "inverse_sqrt", *DECAYING)
DEVICES = ("auto", "cpu", "cuda")
COUNTS = ("max_steps", "batch_size", "accumulation", "log_every", "evaluate_batch_size", "save_every", "keep")
OPTIONAL_COUNTS = {  # what null stands for
    "tokens_per_batch": "train.batch_size examples",
    "evaluate_every": "never",
    "evaluate_rows": "all rows",
    "patience": "never",
}
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
    exits: (
        Mapping[int, float] | None
    )  # decoder layers that learn to write, and the weights of their losses; None = the last
    bf16: str | bool  # "auto" = where the GPU has it
    seed: int
    device: str  # "auto" = a GPU if there is one; "cpu" or "cuda"
    log_every: int  # steps
    evaluate_every: int | None  # steps between evaluations on the validation split
    evaluate_rows: int | None  # validation examples that are decoded; None = all
    evaluate_batch_size: int
    patience: int | None  # evaluations without a new best after which training stops; None = never
    save_every: int  # steps between checkpoints; a new best is saved as well
    keep: int  # checkpoints kept, the best not counted
    wandb: str  # "disabled", "offline" or "online"

    def __post_init__(self) -> None:
        for name in COUNTS:
            check_whole(f"train.{name}", getattr(self, name))
        for name, null in OPTIONAL_COUNTS.items():
            check_whole(f"train.{name}", getattr(self, name), null=null)
        check_whole("train.warmup_steps", self.warmup_steps, least=0)
        check_whole("seed", self.seed, least=0)
        rate, smoothing = self.learning_rate, self.label_smoothing
        self._require("learning_rate", _number(rate) and 0 < rate < math.inf, "a number above 0, such as 1e-4")
        self._require("label_smoothing", _number(smoothing) and 0 <= smoothing < 1, "a number from 0 to below 1")
        told = "the weights of decoder layers, such as {1: 1, 8: 1}, or null for the last one alone"
        self._require("exits", self.exits is None or _are_weights(self.exits), told)
        for name in ("group_by_length", "scale_parameter"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        for name, choices in (("schedule", SCHEDULES), ("wandb", WANDB), ("device", DEVICES)):
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        self._require("bf16", self.bf16 in ("auto", True, False), "auto, true or false")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda: this machine has no usable GPU; use device=auto")
        if self.bf16 is True and not self._has_bf16():
            raise UserError("train.bf16=true: this device does not compute in bfloat16; use train.bf16=auto")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            key = name if name == "device" else f"train.{name}"
            raise UserError(f"{key}={getattr(self, name)}: give {wanted}")

    def check_rows(self, rows: int, processes: int) -> None:
        """Raise ``UserError`` where an update cannot be cut into so many pieces, or there are fewer rows than it needs;
        known before a model is loaded."""
        parts = self.accumulation * processes
        if self.tokens_per_batch is None and self.batch_size < parts:
            raise UserError(
                f"train.batch_size={self.batch_size} cannot be cut into train.accumulation={self.accumulation} "
                f"pieces for each of {processes} processes: raise it to at least {parts}"
            )
        key = "batch_size" if self.tokens_per_batch is None else "accumulation"
        if rows < (parts if self.tokens_per_batch is not None else self.batch_size):
            raise UserError(
                f"{counted(rows, 'row')} to train on, too few for one batch: lower train.{key} "
                f"({getattr(self, key)}), or take more rows"
            )

    def uses_gpu(self) -> bool:
        """Whether training runs on a GPU."""
        return self.device != "cpu" and torch.cuda.is_available()

    def computes_in_bf16(self) -> bool:
        """Whether to compute in bfloat16; weights and optimizer stay in float32."""
        return self._has_bf16() if self.bf16 == "auto" else bool(self.bf16)

    def _has_bf16(self) -> bool:
        return self.uses_gpu() and torch.cuda.is_bf16_supported()

    def identity(self) -> dict[str, Any]:
        """What decides the weights on this machine, under the names that the user gives it."""
        values = {
            f"train.{name}": value for name, value in asdict(self).items() if name not in (*FREE, "seed", "exits")
        }
        values["train.bf16"] = self.computes_in_bf16()
        values["seed"] = self.seed
        if self.exits is not None:
            values |= {f"train.exits.{layer}": weight for layer, weight in sorted(self.exits.items())}
        if self.schedule in DECAYING:
            values["train.max_steps"] = self.max_steps
        return values


def _are_weights(exits: Any) -> bool:
    layers = isinstance(exits, Mapping) and all(isinstance(layer, int) and layer >= 1 for layer in exits)
    return layers and len(exits) > 0 and all(_number(weight) and 0 < weight < math.inf for weight in exits.values())


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
