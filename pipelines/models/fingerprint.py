"""What decides a decoded text, as one hash: two runs with the same key on one machine write the same texts.

Knows models, tokenizers and settings as content, never as paths or names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import bild
from bild.sources.base import DraftSource

DIGITS = 24  # hex digits of a key: 96 bits


def model_hash(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of a model's weights, dtypes and configuration."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for config in (model.config, model.generation_config):
        # Where a model was loaded from, and by which release, does not change what it is.
        settings = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
        settings.pop("transformers_version", None)
        digest.update(_canonical(settings))
    return digest.hexdigest()


def source_hash(source: DraftSource) -> str:
    """SHA-256 (hex, shortened) of a draft source: its kind and its fields. What it shares with a model is that model's.

    Args:
        source: a dataclass.
    """
    return key(type(source).__name__, asdict(source))


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of a vocabulary and its special tokens."""
    return key(tokenizer.get_vocab(), tokenizer.special_tokens_map)


def code_hash() -> str:
    """SHA-256 (hex) of the decoder's source files: another decoder may write other texts."""
    folder = Path(bild.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def decoding_key(
    models: dict[str, str],
    tokenizer: str,
    inputs: Sequence[list[int]],
    policy: object,
    decoding: object,
    batch_size: int,
    device: str,
) -> str:
    """The fingerprint of one decoded split.

    Args:
        models: ``model_hash`` or ``source_hash`` of what the policy uses, by role.
        tokenizer: ``tokenizer_hash``; texts are read back with it.
        inputs: token ids of every source, in order: data, prefix and lengths in one.
        policy, decoding: frozen dataclasses, hashed by their representation.
        batch_size, device: rows decoded together, and "cpu" or "cuda"; sums round differently with both. So they do
            on processors of other makes and with other numbers of threads, which are not told apart.
    """
    versions = [version("torch"), version("transformers"), code_hash()]
    rows = [list(row) for row in inputs]
    return key(models, tokenizer, rows, repr(policy), repr(decoding), batch_size, device, versions)


def key(*parts: Any) -> str:
    """SHA-256 (hex, shortened) of JSON-like values, the same whatever the order of a mapping's entries."""
    return hashlib.sha256(_canonical(parts)).hexdigest()[:DIGITS]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
