"""A training small enough to be run, killed and run again within a test."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import T5Config, T5ForConditionalGeneration, set_seed

from pipelines.data.encode import encode
from pipelines.data.task import Task
from pipelines.data.vocabulary import train_tokenizer
from pipelines.training.run import TrainSummary, train
from pipelines.training.settings import TrainSettings

WORDS = ["ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
SETTINGS = TrainSettings(
    max_steps=22,
    batch_size=8,
    accumulation=2,
    tokens_per_batch=None,
    group_by_length=True,
    learning_rate=1e-3,
    scale_parameter=False,
    schedule="inverse_sqrt",
    warmup_steps=3,
    label_smoothing=0.1,
    exits=None,
    bf16=False,
    seed=7,
    device="cpu",
    log_every=5,
    evaluate_every=8,
    evaluate_rows=4,
    evaluate_batch_size=4,
    patience=None,
    save_every=3,
    keep=2,
    wandb="disabled",
)


def pairs(count: int) -> Dataset:
    """Number words and the same ones reversed; no two rows are alike in length pattern."""
    sources = [" ".join(WORDS[(row * 5 + k * k) % 12] for k in range(1 + row % 6)) for row in range(count)]
    return Dataset.from_dict({"source": sources, "target": [" ".join(reversed(s.split())) for s in sources]})


TASK = Task(name="tiny", version=1, metric="bleu", origin=None, source_length=24, target_length=12)
TOKENIZER = train_tokenizer([*WORDS, *pairs(60)["source"]] * 20, 300)
TRAIN, VALIDATION = encode(pairs(44), TOKENIZER, TASK), encode(pairs(4), TOKENIZER, TASK)


def new_model(dtype: torch.dtype = torch.float32, **changes: Any) -> T5ForConditionalGeneration:
    set_seed(0)
    shape = {
        "vocab_size": len(TOKENIZER),
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_heads": 2,
        "num_layers": 1,
        "dropout_rate": 0.1,
    }
    config = T5Config(decoder_start_token_id=0, tie_word_embeddings=True, **shape | changes)
    return T5ForConditionalGeneration(config).to(dtype)


def run(out: Path, model: T5ForConditionalGeneration | None = None, **changes: Any) -> TrainSummary:
    """Train the tiny model into ``out``; ``changes`` are settings, ``identity`` or ``objective``."""
    identity = changes.pop("identity", {"training data": "number words"})
    objective = changes.pop("objective", None)
    return train(
        model=new_model() if model is None else model,
        tokenizer=TOKENIZER,
        train_dataset=TRAIN,
        validation_dataset=VALIDATION,
        task=TASK,
        settings=dataclasses.replace(SETTINGS, **changes),
        out=out,
        identity=identity,
        objective=objective,
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
