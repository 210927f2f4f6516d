"""Any model through transformers' own forward and caches: the slow twin of the fast engines.

One runner for each kind of model; how rows part company is in ``lanes``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bild.engine.encoder import encode
from bild.engine.lanes import HuggingFaceRunner, Lane


def huggingface_runner(model: PreTrainedModel) -> HuggingFaceRunner:
    """The runner for this kind of model."""
    return EncoderDecoderRunner(model) if model.config.is_encoder_decoder else CausalRunner(model)


class EncoderDecoderRunner(HuggingFaceRunner):
    """``Runner`` over an encoder-decoder model."""

    def _open(self, inputs: dict[str, Any]) -> Lane:
        hidden, mask = encode(self._model, inputs)
        return Lane.of({"hidden": hidden} if mask is None else {"hidden": hidden, "mask": mask})

    def _forward(self, lane: Lane, tokens: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=lane.context["hidden"]),
            attention_mask=lane.context.get("mask"),
            decoder_input_ids=tokens,
            past_key_values=EncoderDecoderCache(lane.written, lane.source),
            use_cache=True,
            return_dict=True,
        )
        logits: Tensor = output.logits
        return logits


class CausalRunner(HuggingFaceRunner):
    """``Runner`` over a decoder-only model. Its tokens begin with the prompt, padded on the left."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._takes_positions = "position_ids" in inspect.signature(type(model).forward).parameters

    def _open(self, inputs: dict[str, Any]) -> Lane:
        """``input_ids`` (B, P) and ``attention_mask`` (B, P) of the prompts. All but the last position is cached, by
        the body of the model alone: nobody reads a prompt's logits."""
        prompt, mask = inputs["input_ids"], inputs.get("attention_mask")
        lane = Lane.of({"mask": torch.ones_like(prompt) if mask is None else mask.long()})
        known = prompt.shape[1] - 1
        if known > 0:
            self._model.get_decoder()(**self._arguments(lane, prompt[:, :known]))
            lane.length = known
        return lane

    def _forward(self, lane: Lane, tokens: Tensor) -> Tensor:
        logits: Tensor = self._model(**self._arguments(lane, tokens)).logits
        return logits

    def _arguments(self, lane: Lane, tokens: Tensor) -> dict[str, Any]:
        """Padding is masked and takes up no position."""
        end = lane.length + tokens.shape[1]
        prompt = lane.context["mask"]
        mask = F.pad(prompt, (0, max(0, end - prompt.shape[1])), value=1)[:, :end]
        arguments = {
            "input_ids": tokens,
            "attention_mask": mask,
            "past_key_values": lane.written,
            "use_cache": True,
            "return_dict": True,
        }
        if self._takes_positions:
            arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, lane.length :]
        return arguments
