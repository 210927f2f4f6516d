"""Models by name: where their weights and tokenizers are, how a new one is built, which checkpoint a pipeline uses.

Knows transformers' loading and this project's checkpoint folders; knows nothing about tasks, training or decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from pipelines.cli import UserError
from pipelines.data.vocabulary import train_tokenizer
from pipelines.training import manifest

CHECKPOINTS = Path("checkpoints")
ROLES = ("finetune", "large", "small")
INITS = ("pretrained", "scratch")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model, instantiated by Hydra from ``conf/model/{name}.yaml``."""

    name: str
    path: str | None  # hub id or folder of the pre-trained weights
    tokenizer: str | None = None  # hub id or folder; None = it lies with the weights
    revision: str | None = None  # of the hub repository: branch, tag or commit
    trust_remote_code: bool = False  # run Python code that comes with a hub model
    init: str = "pretrained"  # or "scratch": random weights of ``architecture``
    architecture: Mapping[str, Any] | None = None  # T5Config fields, for init=scratch
    vocabulary_size: int | None = None  # tokens of the vocabulary that init=scratch trains on the task
    learning_rate: float = 1e-4
    max_steps: int = 500_000
    aligned: str | bool = "auto"  # as the small model of a pair: use {name}-aligned; "auto" = if it is there
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UserError(f"model.init={self.init}: choose one of {', '.join(INITS)}")
        if self.init == "scratch" and (self.architecture is None or self.vocabulary_size is None):
            raise UserError(
                f"model.init=scratch: {self.name} has no architecture and vocabulary_size; use tiny-small or "
                "tiny-large, or give both"
            )
        if self.aligned not in ("auto", True, False):
            raise UserError(f"aligned={self.aligned}: choose auto, true or false")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, with its tokenizer and one line on where it comes from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: str
    note: str


def load(model: Model, task_name: str, role: str, texts: Iterable[str] | None = None, seed: int = 0) -> LoadedModel:
    """Load the starting point of a training, or the best checkpoint there is for decoding.

    Args:
        task_name: its checkpoints are looked for.
        role: "finetune" = pre-trained or new weights; "large" and "small" = the fine-tuned checkpoint of the task if
            there is a complete one (for "small" the aligned one first), else the pre-trained weights.
        texts: what a new vocabulary is trained on, for init=scratch.
        seed: of new weights.

    Returns:
        The model in eval mode, in float32 (for decoding in ``model.dtype``), on the CPU.

    Raises:
        UserError: nothing there to load, an unknown hub id, or no network.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {ROLES}")
    if role != "finetune":
        path, note = choose_checkpoint(model, task_name, role)
        if path is not None:
            return LoadedModel(_weights(model, str(path)), _tokenizer(model, str(path)), str(path), note)
    elif model.init == "scratch":
        return _new(model, texts, seed)
    else:
        note = f"{model.name}: pre-trained weights"
    path = pretrained_path(model)
    where = path if model.tokenizer is None else model.tokenizer
    return LoadedModel(_weights(model, path), _tokenizer(model, where), path, f"{note} from {path}")


def choose_checkpoint(model: Model, task_name: str, role: str) -> tuple[Path | None, str]:
    """The checkpoint of a task that a model of a pair should use (None = the pre-trained weights), and why."""
    tuned = CHECKPOINTS / task_name / model.name
    aligned = tuned.with_name(f"{model.name}-aligned")
    why = ""
    if role == "small" and model.aligned is not False:
        if manifest.is_complete(aligned):
            return aligned, f"{model.name}: aligned checkpoint {aligned}"
        if model.aligned is True:
            raise UserError(f"small.aligned=true: there is no complete checkpoint {aligned}; run pipelines.align first")
        why = ", not aligned"
    if manifest.is_complete(tuned):
        return tuned, f"{model.name}: fine-tuned checkpoint {tuned}{why}"
    return None, f"{model.name}: not fine-tuned on {task_name} yet, so pre-trained weights"


def identity(model: Model) -> dict[str, Any]:
    """What of a model decides a training, by the names that the user gives it."""
    names = ("name", "path", "revision", "init")
    return {f"model.{name}": getattr(model, name) for name in names}


def pretrained_path(model: Model) -> str:
    """The hub id or folder of the pre-trained weights; raises ``UserError`` if a folder is meant and not there."""
    if model.path is None:
        raise UserError("model.path is not set: give a folder or a hub id, such as model.path=google/mt5-small")
    return model.path


def _new(model: Model, texts: Iterable[str] | None, seed: int) -> LoadedModel:
    """A T5 with random weights and a vocabulary of its own."""
    if texts is None:
        raise ValueError("init=scratch needs texts for the vocabulary")
    tokenizer = train_tokenizer(texts, model.vocabulary_size)
    set_seed(seed)
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **model.architecture)
    note = f"{model.name}: new weights (seed {seed}), vocabulary of {len(tokenizer)} tokens trained on the task"
    return LoadedModel(T5ForConditionalGeneration(config).eval(), tokenizer, model.name, note)


def _weights(model: Model, path: str) -> PreTrainedModel:
    try:
        loaded = AutoModelForSeq2SeqLM.from_pretrained(
            path,
            revision=model.revision,
            dtype=getattr(torch, model.dtype),
            use_safetensors=True,
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the model cannot be loaded ({_first_line(error)})") from error
    return loaded.eval()


def _tokenizer(model: Model, path: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the tokenizer cannot be loaded ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
