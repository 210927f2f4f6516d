"""Models by name: where their weights and tokenizers are, how a new one is built, which checkpoint a pipeline uses.

Knows transformers' loading and this project's checkpoint folders; knows nothing about tasks, training or decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from pipelines.cli import UserError, counted, first_line
from pipelines.data.vocabulary import train_tokenizer
from pipelines.models import manifest, shortlist
from pipelines.models.bars import hide_weight_bars, no_load_report
from pipelines.models.hub import Place, locate

CHECKPOINTS = Path("checkpoints")
ELSEWHERE = "if the right one lies elsewhere, say where with model.tokenizer (google/mt5-small for any mT5)"
AGAIN = "where a download broke off, run the same command again, which keeps what has come"
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
    exits: Mapping[int, float] | None = None  # decoder layers that are to learn to write, see ``train.exits``
    aligned: str | bool = "auto"  # as the small model of a pair: use {name}-aligned; "auto" = if it is there
    shortlist: bool = False  # as the small model of a pair: draft from the tokens in its checkpoint's shortlist.json

    def __post_init__(self) -> None:
        for key in ("name", "path", "tokenizer", "revision"):
            value = getattr(self, key)
            if not isinstance(value, str) and (value is not None or key == "name"):
                raise UserError(f"model.{key}={value}: is not text; quote it twice, 'model.{key}=\"{value}\"'")
        if self.name in ("", ".", "..") or "/" in self.name:
            raise UserError(f"model.name={self.name}: names a folder of checkpoints; give a name without slashes")
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
    shortlist: tuple[int, ...] | None = None
    """the only token ids that it may draft; None = all"""


def load(model: Model, task_name: str, role: str, texts: Iterable[str] | None = None, seed: int = 0) -> LoadedModel:
    """Load the starting point of a training, or the best checkpoint there is for decoding.

    Args:
        task_name: its checkpoints are looked for.
        role: "finetune" = pre-trained or new weights; "large" and "small" = the fine-tuned checkpoint of the task if
            there is a complete one (for "small" the aligned one first), else the pre-trained weights.
        texts: what a new vocabulary is trained on, for init=scratch.
        seed: of new weights.

    Returns:
        The model in eval mode, on the CPU, in float32.

    Raises:
        UserError: nothing there to load, a damaged checkpoint, an unknown hub id, no network, or no shortlist where the
            small model is to have one.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {ROLES}")
    for key in ("aligned", "shortlist"):
        if role == "large" and getattr(model, key) is True:
            raise UserError(f"large.{key}=true: is for the small model of a pair; leave it out")
    if role != "finetune":
        checkpoint, note = choose_checkpoint(model, task_name, role)
        found = _pretrained(model, note) if checkpoint is None else _from_path(model, str(checkpoint), None, note)
        return _shortlisted(found) if role == "small" and model.shortlist else found
    if model.init == "scratch":
        return _new(model, texts, seed)
    start = _pretrained(model, f"{model.name}: pre-trained weights")
    check_trainable(start)
    return start


def check_trainable(loaded: LoadedModel) -> None:
    """Raise ``UserError`` on a model that finetune and align do not train."""
    if not loaded.model.config.is_encoder_decoder:
        raise UserError(
            f"{loaded.path}: is decoder-only; pipelines.finetune and pipelines.align train encoder-decoder models, "
            "pipelines.evaluate and pipelines.generate take this one as it is"
        )


def choose_checkpoint(model: Model, task_name: str, role: str) -> tuple[Path | None, str]:
    """The checkpoint of a task that a model of a pair should use (None = the pre-trained weights), and why."""
    tuned = CHECKPOINTS / task_name / model.name
    aligned = tuned.with_name(f"{model.name}-aligned")
    why = ""
    if role == "small" and model.aligned is not False:
        if (aligned / manifest.NAME).exists():
            return aligned, f"{model.name}: aligned checkpoint {aligned}{_extent(aligned)}"
        if model.aligned is True:
            raise UserError(f"small.aligned=true: there is no finished checkpoint {aligned}; run pipelines.align first")
        why = ", not aligned"
    if (tuned / manifest.NAME).exists():
        return tuned, f"{model.name}: fine-tuned checkpoint {tuned}{_extent(tuned)}{why}"
    return None, f"{model.name}: not fine-tuned on {task_name} yet, so pre-trained weights"


def identity(model: Model) -> dict[str, Any]:
    """What of a model decides a training, by the names that the user gives it."""
    keys: dict[str, Any] = {"name": model.name, "init": model.init}
    if model.init == "scratch":
        keys["vocabulary_size"] = model.vocabulary_size
        keys |= {f"architecture.{name}": value for name, value in model.architecture.items()}
    else:
        keys |= {"path": model.path, "revision": model.revision}
    return {f"model.{name}": value for name, value in keys.items()}


def _pretrained(model: Model, note: str) -> LoadedModel:
    if model.path is None:
        raise UserError("model.path is not set: give a folder or a hub id, such as model.path=google/mt5-small")
    return _from_path(model, model.path, model.tokenizer, f"{note} from {model.path}")


def _shortlisted(loaded: LoadedModel) -> LoadedModel:
    ids = shortlist.read(Path(loaded.path), loaded.tokenizer)
    note = f"{loaded.note}; drafts from {shortlist.share(ids, loaded.tokenizer)} ({shortlist.NAME})"
    return replace(loaded, note=note, shortlist=ids)


def _extent(checkpoint: Path) -> str:
    """How far a checkpoint was trained, in brackets, as far as its manifest tells."""
    try:
        about = manifest.read(checkpoint)
    except manifest.IncompleteError:
        return ""  # whoever loads it says what is wrong
    numbers = {"step": about.get("step"), "row": about.get("identity", {}).get("training rows")}
    told = [counted(number, noun) for noun, number in numbers.items() if isinstance(number, int)]
    return f" ({', '.join(told)})" if told else ""


def _new(model: Model, texts: Iterable[str] | None, seed: int) -> LoadedModel:
    """A T5 with random weights and a vocabulary of its own."""
    if texts is None:
        raise ValueError("init=scratch needs texts for the vocabulary")
    tokenizer = train_tokenizer(texts, model.vocabulary_size)
    set_seed(seed)
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **model.architecture)
    config.decoder_layers = config.num_decoder_layers  # else transformers' generate has a cache per encoder layer only
    note = f"{model.name}: new weights (seed {seed}), vocabulary of {len(tokenizer)} tokens trained on the task"
    return LoadedModel(T5ForConditionalGeneration(config).eval(), tokenizer, model.name, note)


def _from_path(model: Model, path: str, tokenizer: str | None, note: str) -> LoadedModel:
    """A model from a folder or the hub, its tokenizer from there or from elsewhere."""
    place = locate(path, model.revision, weights=True)
    where = {
        "revision": place.revision,
        "local_files_only": place.offline,
        "trust_remote_code": model.trust_remote_code,
    }
    hide_weight_bars()
    try:
        config = AutoConfig.from_pretrained(path, **where)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with no_load_report():
            loaded, found = kind.from_pretrained(
                path,
                config=config,
                **where,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # looked at below
                output_loading_info=True,
            )
    except Exception as error:  # for files that cannot be read the libraries have no class in common
        raise UserError(
            f"{path}: the model cannot be loaded ({first_line(error)}); it must be an encoder-decoder or decoder-only "
            f"one, and its files whole; {'make or download damaged ones again' if place.offline else AGAIN}"
        ) from error
    _check_weights(found, path)
    words = _tokenizer(place if tokenizer is None else locate(tokenizer), model.trust_remote_code)
    _check_sizes(words, loaded, path if tokenizer is None else tokenizer)
    return LoadedModel(loaded.eval(), words, path, note + place.note)


def _tokenizer(place: Place, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        loaded = AutoTokenizer.from_pretrained(
            place.path,
            revision=place.revision,
            local_files_only=place.offline,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # the tokenizers library raises nothing more special
        raise UserError(f"{place.path}: the tokenizer cannot be loaded ({first_line(error)}); {ELSEWHERE}") from error
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token  # as GPT-2's: what stands there is masked
    return loaded


def _check_weights(found: Mapping[str, Any], path: str) -> None:
    """What is not in the files, or not in the shape that the config says, transformers fills with random numbers."""
    lacking = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if lacking:
        raise UserError(
            f"{path}: its files lack {counted(len(lacking), 'weight')} that its config.json asks for, such as "
            f"{lacking[0]}; make it or download it again"
        )


def _check_sizes(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, path: str) -> None:
    """Where there are no tokenizer files, transformers makes a tokenizer that knows no words, without a warning."""
    tokens, embedded = len(tokenizer), model.get_input_embeddings().num_embeddings
    if not embedded / 2 <= tokens <= embedded:
        raise UserError(f"{path}: its tokenizer has {tokens} tokens, but the model {embedded}; {ELSEWHERE}")
