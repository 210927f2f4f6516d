"""Sizes of T5 models, and models of such sizes with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from benchmarks.errors import UserError

FIELDS = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers", "vocab_size")
"""What makes a shape; ``num_decoder_layers`` is ``num_layers`` where it is left out."""


def _shape(family: str, *sizes: int) -> dict[str, Any]:
    d_model, d_kv, d_ff, heads, layers, vocab = sizes
    return {"family": family, **dict(zip(FIELDS, (d_model, d_kv, d_ff, heads, layers, layers, vocab), strict=True))}


PAPER: dict[str, dict[str, Any]] = {
    "t5-small": _shape("t5", 512, 64, 2048, 8, 6, 32128),
    "t5-large": _shape("t5", 1024, 64, 4096, 16, 24, 32128),
    "mt5-small": _shape("mt5", 512, 64, 1024, 6, 8, 250112),
    "mt5-large": _shape("mt5", 1024, 64, 2816, 16, 24, 250112),
}


def parse_shape(text: str) -> dict[str, Any]:
    """A name of ``PAPER``, or a shape of one's own such as "t5:d_model=64,d_kv=8,d_ff=128,num_heads=8,num_layers=2,
    vocab_size=1000". Raises UserError on anything else."""
    if text in PAPER:
        return PAPER[text]
    family, _, fields = text.partition(":")
    pairs = [field.partition("=")[::2] for field in fields.split(",")]
    sizes = {name: int(value) for name, value in pairs if name in FIELDS and value.isdecimal() and int(value) > 0}
    if "num_layers" in sizes:
        sizes.setdefault("num_decoder_layers", sizes["num_layers"])
    if family not in ("t5", "mt5") or len(sizes) < len(FIELDS) or not {name for name, _ in pairs} <= set(FIELDS):
        raise UserError(
            f"shape {text!r}: give {', '.join(PAPER)}, or t5: or mt5: and {','.join(f'{name}=N' for name in FIELDS)}"
        )
    return {"family": family, **{name: sizes[name] for name in FIELDS}}


def shape_of(model: PreTrainedModel) -> dict[str, Any]:
    """The shape of a T5 or mT5."""
    return {"family": model.config.model_type, **{name: getattr(model.config, name) for name in FIELDS}}


def thin(shape: dict[str, Any]) -> dict[str, Any]:
    """As deep as ``shape``, and so narrow that a step of it takes what Python and the dispatch of operators take."""
    return {**shape, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "vocab_size": 32}


def config_fields(shape: dict[str, Any]) -> dict[str, Any]:
    """What a config of this shape says. By ``decoder_layers`` transformers' generate sizes its caches; without it they
    have a layer for each of the encoder's."""
    return {**{name: shape[name] for name in FIELDS}, "decoder_layers": shape["num_decoder_layers"]}


def random_model(shape: dict[str, Any], dtype: torch.dtype, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """A model of this shape in evaluation mode that never writes an EOS: T5 with relu and a tied head, mT5 gated, with
    a head of its own."""
    sizes = config_fields(shape)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        if shape["family"] == "t5":
            model: PreTrainedModel = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
        else:
            model = MT5ForConditionalGeneration(MT5Config(**sizes, decoder_start_token_id=0))
            # transformers 5 ties every mT5 that it makes; the published ones have two matrices.
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
            model.config.tie_word_embeddings = False
    model.generation_config.eos_token_id = None
    return model.to(dtype).eval()
