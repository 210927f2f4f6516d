"""The two sides of a comparison, loaded and checked to fit together, and the fingerprint of what they write.

Knows how models are described; knows nothing about how texts are decoded or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bild.api import models_in_use
from bild.policies.base import Policy
from bild.sources.base import DraftSource
from pipelines.cli import UserError
from pipelines.data.task import Task
from pipelines.decoding.config import instantiated
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.decoding.prompts import check_fit
from pipelines.files import ROOT
from pipelines.models.fingerprint import decoding_key, key, model_hash, source_hash, tokenizer_hash

if TYPE_CHECKING:
    from pipelines.models.sources import SourceConfig

# float16 is missing on purpose: it overflows in nearly every T5.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class Described:
    """One side of a pair, for people and results. A draft source has no path, no parameters of its own and no dtype."""

    name: str
    path: str | None
    note: str
    parameters: int
    dtype: str | None
    weights: str
    """``model_hash``, with a shortlist hashed together with it, or ``source_hash``"""


@dataclass(frozen=True)
class Pair:
    """A large and a small model, in eval mode on one device, or what drafts in place of the small one, and the
    tokenizer they share."""

    large: PreTrainedModel | None
    small: PreTrainedModel | DraftSource | None
    tokenizer: PreTrainedTokenizerBase
    described: dict[str, Described]
    """by role: "large", "small", or both"""
    shortlist: tuple[int, ...] | None = None
    """the only token ids that the small model may draft; None = all"""

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(model.device for model in (self.large, self.small) if isinstance(model, PreTrainedModel))

    def decoder(self, decoding: Decoding) -> BatchDecoder:
        """What writes texts with this pair."""
        return BatchDecoder(self.large, self.small, self.tokenizer, decoding, self.shortlist)


def load_pair(config: DictConfig, task: Task, roles: Sequence[str] = ("large", "small")) -> Pair:
    """The pair of a config's ``large`` and ``small``, or one of them, on its ``device`` in its ``dtype``. A small side
    that is no model comes with the large one, whatever the ``roles``.

    Raises:
        UserError: something that cannot be loaded, an unknown device or dtype, two tokenizers, or models that do not
            fit together or to the task.
    """
    from pipelines.models.loading import load
    from pipelines.models.sources import SourceConfig

    device = chosen_device(config.device)
    dtype = chosen_dtype(config.dtype)
    asked = {role: instantiated(config, role) for role in roles}
    drafts = asked.pop("small") if isinstance(asked.get("small"), SourceConfig) else None
    if drafts is not None and "large" not in asked:
        asked["large"] = instantiated(config, "large")
    loaded = {role: load(model, task.name, role) for role, model in asked.items()}
    tokenizers = [one.tokenizer for one in loaded.values()]
    check_tokenizers(tokenizers[0], tokenizers[-1])
    check_fit({role: one.model for role, one in loaded.items()}, task)
    models = {role: one.model.to(device=device, dtype=dtype).eval() for role, one in loaded.items()}
    described = {role: describe(models[role], one.path, one.note, one.shortlist) for role, one in loaded.items()}
    listed = loaded["small"].shortlist if "small" in loaded else None
    pair = Pair(models.get("large"), models.get("small"), tokenizers[0], described, listed)
    return pair if drafts is None else drafted_by(pair, drafts, task)


def drafted_by(pair: Pair, drafts: SourceConfig, task: Task) -> Pair:
    """The same large model with something that is no model in place of the small one.

    Raises:
        UserError: what drafts is made of something that is not there, or does not belong to this model.
    """
    from pipelines.models.loading import LoadedModel

    large = pair.described["large"]
    made = drafts.load(LoadedModel(pair.large, pair.tokenizer, large.path, large.note), task)
    small = describe_source(made.source, drafts.name, made.note, made.shortlist)
    return replace(pair, small=made.source, described={"large": large, "small": small}, shortlist=made.shortlist)


def pair_key(pair: Pair, policy: Policy, inputs: Sequence[list[int]], decoding: Decoding, batch_size: int) -> str:
    """The fingerprint of what a policy writes for some inputs; a model that it does not use does not enter."""
    in_use = models_in_use(pair.large, pair.small, policy)
    used = {"large": "large" in in_use, "small": policy.uses_small}
    weights = {role: model.weights for role, model in pair.described.items() if used[role]}
    tokenizer = tokenizer_hash(pair.tokenizer)
    return decoding_key(weights, tokenizer, inputs, policy, decoding, batch_size, pair.device.type)


def describe(model: PreTrainedModel, path: str, note: str, shortlist: Sequence[int] | None = None) -> Described:
    """What a result says of a model: its name is the last part of its path. One that may draft only the tokens of a
    shortlist counts as another model."""
    weights = drafts_hash(model)
    inside = Path(path).is_absolute() and Path(path).is_relative_to(ROOT)
    return Described(
        name=Path(path).name,
        path=str(Path(path).relative_to(ROOT)) if inside else path,
        note=note,
        parameters=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        weights=_restricted(weights, shortlist),
    )


def describe_source(source: DraftSource, name: str, note: str, shortlist: Sequence[int] | None = None) -> Described:
    """What a result says of something that drafts in place of a small model."""
    alone = "" if source.writes_alone else "; it only drafts, so there is no small alone"
    weights = _restricted(drafts_hash(source), shortlist)
    return Described(name, path=None, note=note + alone, parameters=0, dtype=None, weights=weights)


def drafts_hash(small: PreTrainedModel | DraftSource) -> str:
    """The hash of what drafts, whatever it may draft."""
    return model_hash(small) if isinstance(small, PreTrainedModel) else source_hash(small)


def _restricted(weights: str, shortlist: Sequence[int] | None) -> str:
    """The hash of what drafts from a shortlist."""
    return weights if shortlist is None else key(weights, list(shortlist))


def check_tokenizers(large: PreTrainedTokenizerBase, small: PreTrainedTokenizerBase) -> None:
    """Raise ``UserError`` unless both models read and write the same token ids."""
    if large.get_vocab() == small.get_vocab() and large.all_special_ids == small.all_special_ids:
        return
    ours, theirs = large.get_vocab(), small.get_vocab()
    differing = sum(theirs.get(token) != index for token, index in ours.items())
    raise UserError(
        f"large ({large.name_or_path}) and small ({small.name_or_path}) have different tokenizers ({len(ours)} and "
        f"{len(theirs)} tokens, {differing} of the first are not the same in the second); choose a pair that shares one"
    )


def chosen_device(name: str) -> torch.device:
    """ "auto" is cuda where there is one, else cpu."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device={name}: is not a device; choose auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: this machine has no usable GPU; choose device=cpu")
    return device


def chosen_dtype(name: str) -> torch.dtype:
    """One of the names of ``DTYPES``."""
    if name not in DTYPES:
        raise UserError(f"dtype={name}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]
