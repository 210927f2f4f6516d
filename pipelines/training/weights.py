"""Weights to and from a folder. Safetensors only; knows nothing about training."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from pipelines.cli import UserError

# What the libraries raise when a file cannot be written.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)


def unwritable(what: Path, error: Exception) -> UserError:
    """One line for a failed write."""
    return UserError(
        f"{what} cannot be written ({error}); the checkpoints before it are untouched: make room on the disk and run "
        "the same command again"
    )


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Mapping[str, str]
) -> None:
    """Write weights, config, generation config, tokenizer, and text files by name."""
    logging.disable_progress_bar()  # "Writing model shards" says nothing that anyone waits for
    in_training = model.config.use_cache
    model.config.use_cache = True  # the trainer switches it off for itself; whoever loads the model wants it
    try:
        model.save_pretrained(folder)
    finally:
        model.config.use_cache = in_training
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # safetensors makes files that only their owner may read
    tokenizer.save_pretrained(folder)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights of a checkpoint into a model of the same shape. Tied weights are stored once.

    Raises:
        RuntimeError: the weights are not those of this model.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= safetensors.torch.load_file(path, device="cpu")
    outcome = model.load_state_dict(weights, strict=False)
    missing = set(outcome.missing_keys) - set(model.all_tied_weights_keys)
    if missing or outcome.unexpected_keys:
        raise RuntimeError(f"{folder}: missing weights {sorted(missing)}, unexpected {outcome.unexpected_keys}")
