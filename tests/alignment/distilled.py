"""A distillation small enough to be run, killed and run again within a test.

As a program it is what ``accelerate launch`` runs: ``python -m tests.alignment.distilled FOLDER ACCUMULATION``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from pipelines.alignment.distill import Distillation
from pipelines.alignment.divergence import Divergence
from pipelines.training.run import TrainSummary
from tests.training import tiny


def new_teacher(dtype: torch.dtype) -> T5ForConditionalGeneration:
    """Two layers, a head that is eight tokens wider than the student's, and dropout that eval mode must keep out."""
    return tiny.new_model(dtype, num_layers=2, vocab_size=len(tiny.TOKENIZER) + 8, initializer_factor=3.0).train()


def objective(
    student: T5ForConditionalGeneration,
    student_fraction: float = 0.5,
    seed: int = 7,
    name: str = "jsd",
    teacher: T5ForConditionalGeneration | None = None,
) -> Distillation:
    """Texts of six tokens at most."""
    return Distillation(
        new_teacher(student.dtype) if teacher is None else teacher,
        student,
        tiny.TOKENIZER,
        Divergence(name=name, beta=0.5, temperature=1.0, top_k=None),
        student_fraction=student_fraction,
        max_new_tokens=6,
        engine="auto",
        seed=seed,
    )


def run(out: Path, seed: int = 7, **changes: Any) -> TrainSummary:
    """Half of the rows train on texts that the student draws."""
    model = tiny.new_model()
    return tiny.run(out, model, objective=objective(model, seed=seed), max_steps=11, evaluate_every=5, **changes)


def exact_run(out: Path, accumulation: int) -> None:
    """Five updates of 8 rows in float64 without dropout."""
    model = tiny.new_model(torch.float64, dropout_rate=0.0)
    changes = {"accumulation": accumulation, "max_steps": 5, "learning_rate": 1e-2, "log_every": 1}
    if not torch.cuda.is_available():
        changes["device"] = "auto"
    tiny.run(out, model, objective=objective(model), group_by_length=False, evaluate_every=None, **changes)


if __name__ == "__main__":
    exact_run(Path(sys.argv[1]), accumulation=int(sys.argv[2]))
