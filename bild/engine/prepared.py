"""Decoders made ready once per model and kept as long as the model lives, never past a change of its weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import MT5ForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from bild.engine.t5 import T5Decoder

FAMILY = (T5ForConditionalGeneration, MT5ForConditionalGeneration)
PROBES = 8  # values of each weight that are compared


class _Prepared:
    """A decoder and what its model's weights were when it was made."""

    def __init__(self, model: PreTrainedModel, *, int8: bool) -> None:
        self.decoder = T5Decoder(model, int8=int8)
        self._identity = _identity(model)
        # Views: they keep the old weights' memory from being given to new ones, so that an address says who is who.
        self._probes = [_probe(weight) for weight in _weights(model)]
        self._values = self._read()

    def is_current(self, model: PreTrainedModel) -> bool:
        """No weight has been replaced, moved, cast or written to since; also not through ``parameter.data``, which
        leaves no mark but the values, of which a few are compared."""
        return self._identity == _identity(model) and torch.equal(self._values, self._read())

    def _read(self) -> Tensor:
        return torch.cat(self._probes)


_kept: WeakKeyDictionary[PreTrainedModel, dict[bool, _Prepared]] = WeakKeyDictionary()


def t5_decoder(model: PreTrainedModel, *, int8: bool) -> T5Decoder:
    """The decoder of ``model``, made anew if its weights have changed."""
    kept = _kept.setdefault(model, {})
    if int8 not in kept or not kept[int8].is_current(model):
        kept[int8] = _Prepared(model, int8=int8)
    return kept[int8].decoder


def why_not_t5(model: PreTrainedModel) -> str | None:
    """Why the T5 decoder cannot stand in for this model's own forward; None if it can."""
    if type(model) not in FAMILY:
        return f"it serves {' and '.join(one.__name__ for one in FAMILY)}, and this is a {type(model).__name__}"
    for name, module in model.decoder.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"decoder.{name} has forward hooks, which it would not call"
        if not type(module).__module__.startswith(("torch.nn.modules.", "transformers.")):
            return f"decoder.{name} is a {type(module).__name__}, not what transformers puts there"
    devices = {str(weight.device) for weight in model.parameters()}
    if len(devices) > 1:
        return f"its weights are spread over {', '.join(sorted(devices))}"
    return None


def _weights(model: PreTrainedModel) -> list[Tensor]:
    """Everything that the decoder reads."""
    return [*model.decoder.parameters(), model.get_output_embeddings().weight]


def _identity(model: PreTrainedModel) -> list[tuple[object, ...]]:
    return [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in _weights(model)]


def _probe(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    return flat[:: max(1, len(flat) // PROBES)][:PROBES]
