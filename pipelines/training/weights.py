"""Weights to and from a folder. Safetensors only; knows nothing about training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.cli import UserError, first_line
from pipelines.models.bars import hide_weight_bars

# torch has no exception of its own for a file that it cannot write: a RuntimeError names the source file or its class.
TORCH_WRITERS = ("inline_container", "PytorchStreamWriter")


@contextmanager
def drafting(final: Path, draft: Path) -> Iterator[None]:
    """What the block writes to the folder ``draft`` is to become ``final``; nothing is left of it if the block fails.

    Raises:
        UserError: a file could not be written, for example because the disk is full. Other errors stay what they are.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not _is_failed_write(error):
            raise
        raise UserError(
            f"{final} cannot be written ({first_line(error)}); the checkpoints before it are untouched: make room on "
            "the disk and run the same command again"
        ) from error


def _is_failed_write(error: Exception) -> bool:
    of_torch = isinstance(error, RuntimeError) and any(name in str(error) for name in TORCH_WRITERS)
    return of_torch or isinstance(error, (OSError, SafetensorError))


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Mapping[str, str]
) -> None:
    """Write weights, config, generation config, tokenizer, and text files by name."""
    hide_weight_bars()
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
