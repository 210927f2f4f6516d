"""What a T5 decoder attends to: the encoder's output, as each layer's keys and values. Keeps nothing of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.encoder import encode
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.encoder import T5Encoder


class SourceReader:
    """``encoder`` None = the model's own forward encodes."""

    def __init__(self, model: PreTrainedModel, encoder: T5Encoder | None, decoder: T5Decoder) -> None:
        self._model = model
        self._encoder = encoder
        self._decoder = decoder

    def read(self, encoder_inputs: dict[str, Any], layers: range) -> tuple[list[Tensor], Tensor]:
        """The source's keys and values side by side, (B, S, 2A) for each of these layers, and (B, S) where it is no
        padding."""
        hidden, mask = self._encode(encoder_inputs)
        flat, shape = hidden.reshape(-1, hidden.shape[-1]), hidden.shape[:2]
        joined = [self._decoder.layers[layer].cross_kv(flat).view(*shape, -1) for layer in layers]
        valid = torch.ones(shape, dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()
        return joined, valid

    def encoder_of(self, encoder_inputs: dict[str, Any]) -> T5Encoder | None:
        """This engine's encoder for token ids and mask; None where the model's own forward must read."""
        return self._encoder if encoder_inputs.keys() <= {"input_ids", "attention_mask"} else None

    def _encode(self, encoder_inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        encoder, mask = self.encoder_of(encoder_inputs), encoder_inputs.get("attention_mask")
        if encoder is None:
            return encode(self._model, encoder_inputs)
        return encoder(encoder_inputs["input_ids"], mask), mask
