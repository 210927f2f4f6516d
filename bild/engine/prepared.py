"""Encoders and decoders made ready once per model and kept as long as the model lives, never past a change of it."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import MT5ForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.encoder import T5Encoder

FAMILY = (T5ForConditionalGeneration, MT5ForConditionalGeneration)
PROBES = 8  # values of each weight that are compared


def why_not_t5(model: PreTrainedModel) -> str | None:
    """Why the T5 decoder cannot stand in for this model's own forward; None if it can."""
    if type(model) not in FAMILY:
        return f"it serves {' and '.join(one.__name__ for one in FAMILY)}, and this is a {type(model).__name__}"
    watch = _watches.get(model)
    if watch is None or not watch.is_current():
        watch = _watches[model] = _Watch(model)
    return watch.why_not


def t5_halves(model: PreTrainedModel, *, int8: bool) -> tuple[T5Encoder | None, T5Decoder]:
    """Encoder and decoder of a model that ``why_not_t5`` has just found fit, made anew if the model has changed.

    None where the encoder has been altered in a way that only its own forward serves, by hooks for example.
    """
    watch = _watches[model]
    if int8 not in watch.halves:
        embedding = model.get_input_embeddings().weight.detach()
        fit = watch.obstacle("encoder") is None
        encoder = T5Encoder(model.encoder, embedding, int8=int8) if fit else None
        watch.halves[int8] = encoder, T5Decoder(model, int8=int8)
    return watch.halves[int8]


class _Watch:
    """What a model is made of, to notice every change at every call in a few microseconds."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.halves: dict[bool, tuple[T5Encoder | None, T5Decoder]] = {}
        self._modules = list(_named_children("", model))
        modules = [child for _, _, child, _ in self._modules]
        self._homes = [(module._parameters, name) for module in modules for name in module._parameters]
        self._identity = self._identify()
        # Views: they keep the old weights' memory from being given to new ones, so that an address says who is who.
        self._probes = [_probe(weight) for weight in self._weights()]
        self._values = torch.cat(self._probes)
        self._obstacles = self._find_obstacles()

    @property
    def why_not(self) -> str | None:
        return self.obstacle("decoder")

    def obstacle(self, part: str) -> str | None:
        """Why a part of the model ("encoder", "decoder") must run its own forward; None if it need not."""
        return next((reason for name, reason in self._obstacles if name.startswith((part, "lm_head", "shared"))), None)

    def is_current(self) -> bool:
        """No module or weight has been replaced, moved, cast or written to since, and no hook added; nor has anything
        been written through ``parameter.data``, which leaves no mark but the values, of which a few are compared."""
        return (
            all(children.get(key) is child for children, key, child, _ in self._modules)
            and self._identity == self._identify()
            and torch.equal(self._values, torch.cat(self._probes))
            and self._obstacles == self._find_obstacles()
        )

    def _weights(self) -> Iterator[Tensor]:
        for parameters, name in self._homes:
            weight = parameters[name]
            if weight is not None:
                yield weight

    def _identify(self) -> list[tuple[object, ...]]:
        return [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in self._weights()]

    def _find_obstacles(self) -> list[tuple[str, str]]:
        """(module's name, what is unusual about it)"""
        found = []
        for _, _, module, name in self._modules:
            if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
                found.append((name, f"{name} has hooks or a forward of its own, which it would not call"))
            elif not type(module).__module__.startswith(("torch.nn.modules.", "transformers.")):
                found.append((name, f"{name} is a {type(module).__name__}, not what transformers puts there"))
        devices = sorted({str(weight.device) for weight in self._weights()})
        if len(devices) > 1:
            found.append(("decoder", f"its weights are spread over {', '.join(devices)}"))
        return found


_watches: WeakKeyDictionary[PreTrainedModel, _Watch] = WeakKeyDictionary()


def _named_children(name: str, module: nn.Module) -> Iterator[tuple[dict[str, nn.Module | None], str, nn.Module, str]]:
    """Every module below ``module``: where it is kept, under which key, itself, and its full name."""
    for key, child in module._modules.items():
        if child is not None:
            path = f"{name}.{key}" if name else key
            yield module._modules, key, child, path
            yield from _named_children(path, child)


def _probe(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    return flat[:: max(1, len(flat) // PROBES)][:PROBES]
