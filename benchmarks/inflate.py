"""A trained T5 widened to a bigger shape: the same outputs, token for token, at the big shape's cost.

So that real text and real acceptance meet real cost with nothing to download. The model's own numbers fill a corner
of every matrix. Everything else is arranged so that it cannot reach the result: the new residual dimensions stay zero,
new heads and feed-forward units meet zero columns, new layers write nothing, new vocabulary rows are pushed to a
probability of 0. Whatever can stay random does, so that no kernel multiplies zeros only.

The push needs one residual dimension that is not zero: the *spare* one, the same tiny constant for every token. Only
the decoder's last norm lets it through; it then meets a large negative number in the new rows of the head.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, T5ForConditionalGeneration

from benchmarks.errors import UserError
from benchmarks.shapes import FIELDS, config_fields

PUSH = 1000.0
"""Nats by which a new vocabulary row falls short at a typical position; float32 needs 104 for a probability of 0."""
SPARE_SHARE = 0.25
"""The spare dimension after the last norm, beside the largest of the others: 8-bit activations must see both."""


@torch.no_grad()
def inflate(model: PreTrainedModel, shape: dict[str, Any], seed: int = 0) -> T5ForConditionalGeneration:
    """A float32 T5 of ``shape`` on the CPU that writes what ``model`` writes. ``model`` must be a T5 with relu and a
    tied, scaled head, and no bigger than ``shape`` in any field. Raises UserError where it is not."""
    _check(model, shape)
    own = model.config
    width, new_width = own.d_model, shape["d_model"]
    # In units of the largest weight's 8-bit step, so that engines that round embeddings keep it.
    spare = model.shared.weight.abs().max().item() / 127 if new_width > width else 0.0
    config = copy.deepcopy(own)
    for name, size in config_fields(shape).items():
        setattr(config, name, size)
    # The mean square over more dimensions is smaller, and the spare one adds its own; this evens out both exactly.
    config.layer_norm_epsilon = (width * own.layer_norm_epsilon - spare**2) / new_width
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        big = T5ForConditionalGeneration(config).float().eval()
    big.generation_config = copy.deepcopy(model.generation_config)
    for stack, big_stack in ((model.encoder, big.encoder), (model.decoder, big.decoder)):
        _stack(stack, big_stack)
    # The head divides by the root of its width.
    big.decoder.final_layer_norm.weight[:width] *= math.sqrt(new_width / width)
    _embedding(model.shared.weight, big.shared.weight, spare)
    if spare > 0:
        _push_new_rows(model, big, spare)
    return big


def _check(model: PreTrainedModel, shape: dict[str, Any]) -> None:
    config = model.config
    head = model.get_output_embeddings().weight
    if not (
        isinstance(model, T5ForConditionalGeneration)
        and config.dense_act_fn == "relu"
        and not config.is_gated_act
        and config.scale_decoder_outputs
        and head.data_ptr() == model.shared.weight.data_ptr()
    ):
        raise UserError(
            "only a T5 with relu and a tied, scaled head can be inflated; use the mode pair for other models"
        )
    if shape["family"] != "t5":
        raise UserError("a T5 can only be inflated to a T5 shape; give t5-small, t5-large or t5:...")
    for name in FIELDS:
        if shape[name] < getattr(config, name):
            raise UserError(f"{name}={shape[name]} of the shape is less than the model's {getattr(config, name)}")
    if shape["vocab_size"] > config.vocab_size and shape["d_model"] == config.d_model:
        raise UserError("new vocabulary rows need a residual dimension to spare; give the shape a larger d_model")


def _stack(stack: nn.Module, big: nn.Module) -> None:
    """An encoder or a decoder: its layers into the first ones of the big stack, the others silenced."""
    for number, block in enumerate(big.block):
        parts = stack.block[number].layer if number < len(stack.block) else [None] * len(block.layer)
        for part, big_part in zip(parts, block.layer, strict=True):
            inner = next(
                name for name in ("SelfAttention", "EncDecAttention", "DenseReluDense") if hasattr(big_part, name)
            )
            own = None if part is None else getattr(part, inner)
            if inner == "DenseReluDense":
                _feed_forward(own, getattr(big_part, inner))
            else:
                _attention(own, getattr(big_part, inner))
            if part is not None:
                _norm(part.layer_norm.weight, big_part.layer_norm.weight)
    _norm(stack.final_layer_norm.weight, big.final_layer_norm.weight)


def _attention(own: nn.Module | None, big: nn.Module) -> None:
    """Heads into the first heads, each into the first dimensions of one; ``own`` None = write nothing."""
    big.o.weight.zero_()
    if own is None:
        return
    heads, head_width, width = own.n_heads, own.key_value_proj_dim, own.d_model

    def split(matrix: Tensor, of: nn.Module) -> Tensor:
        """(H, head width, D)"""
        return matrix.unflatten(0, (of.n_heads, of.key_value_proj_dim))

    for name in ("q", "k", "v"):
        target = split(getattr(big, name).weight, big)
        target[:heads, :head_width, :width] = split(getattr(own, name).weight, own)
    # New dimensions of a head would add to its scores: the query's stay random, the key's are zero.
    split(big.k.weight, big)[:heads, head_width:] = 0
    split(big.o.weight.T, big)[:heads, :head_width, :width] = split(own.o.weight.T, own)
    if own.has_relative_attention_bias:
        big.relative_attention_bias.weight[:, :heads] = own.relative_attention_bias.weight


def _feed_forward(own: nn.Module | None, big: nn.Module) -> None:
    big.wo.weight.zero_()
    if own is not None:
        inner, width = own.wi.weight.shape
        big.wi.weight[:inner, :width] = own.wi.weight
        big.wo.weight[:width, :inner] = own.wo.weight


def _norm(own: Tensor, big: Tensor) -> None:
    """The mean square shrinks with the share of dimensions in use, and the weight with its root."""
    big[: len(own)] = own * math.sqrt(len(own) / len(big))
    big[len(own) : len(own) + 1] = 0  # the spare dimension


def _embedding(own: Tensor, big: Tensor, spare: float) -> None:
    rows, width = own.shape
    big[:rows, :width] = own
    big[:rows, width:] = 0
    big[:rows, width : width + 1] = spare


def _push_new_rows(model: PreTrainedModel, big: T5ForConditionalGeneration, spare: float) -> None:
    """Let the spare dimension through the last norm, and into the new rows of the head with a minus."""
    width, new_width = model.config.d_model, big.config.d_model
    root_mean_square, peak = _typical_hidden(model)
    let_through = SPARE_SHARE * peak * math.sqrt(new_width / width)
    shrunk = root_mean_square * math.sqrt(width / new_width)
    big.decoder.final_layer_norm.weight[width] = let_through * shrunk / spare
    big.shared.weight[model.config.vocab_size :, width] = -PUSH / (let_through * new_width**-0.5)


def _typical_hidden(model: PreTrainedModel) -> tuple[float, float]:
    """Medians over positions of some random text: root mean square before the decoder's last norm, and the largest
    absolute value after it."""
    seen: list[Tensor] = []
    hook = model.decoder.final_layer_norm.register_forward_hook(
        lambda _, inputs, output: seen.extend((*inputs, output))
    )
    ids = torch.randint(model.config.vocab_size, (4, 32), generator=torch.Generator().manual_seed(0)).to(model.device)
    try:
        model(input_ids=ids, decoder_input_ids=ids.flip(0))
    finally:
        hook.remove()
    before, after = (tensor.float() for tensor in seen)
    return before.square().mean(-1).sqrt().median().item(), after.abs().amax(-1).median().item()
