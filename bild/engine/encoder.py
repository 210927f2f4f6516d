"""The encoder's turn: transformers' own forward, or what the caller has computed already."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


def encode(model: PreTrainedModel, encoder_inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Hidden states (B, S, D) of the source and its attention mask (B, S), None where there is none.

    ``encoder_inputs``: what the model's encoder takes, features in any floating dtype, or ``encoder_outputs``, which
    are used as they are.
    """
    outputs = encoder_inputs.get("encoder_outputs")
    if outputs is None:
        inputs = {
            name: value.to(model.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in encoder_inputs.items()
        }
        outputs = model.get_encoder()(**inputs, return_dict=True)
    return outputs.last_hidden_state, encoder_inputs.get("attention_mask")
