"""The encoder's turn: transformers' own forward, or what the caller has computed already."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


def encode(model: PreTrainedModel, encoder_inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Hidden states (B, S, D) of the source and its attention mask (B, S), None where there is none.

    ``encoder_inputs``: what the model's encoder takes, or ``encoder_outputs``, which are used as they are.
    """
    outputs = encoder_inputs.get("encoder_outputs")
    if outputs is None:
        outputs = model.get_encoder()(**encoder_inputs, return_dict=True)
    return outputs.last_hidden_state, encoder_inputs.get("attention_mask")
