"""Encoders and decoders made ready once per model and kept as long as the model lives, never past a change of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, repeat
from operator import attrgetter, contains
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

import torch
from torch import Tensor, nn
from transformers import MT5ForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from bild.engine.probes import Probes
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.encoder import T5Encoder

FAMILY = (T5ForConditionalGeneration, MT5ForConditionalGeneration)
OWN_MODULES = ("torch.nn.modules.", "transformers.models.t5.", "transformers.models.mt5.", "transformers.activations")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
IN_HEADS = (".q", ".k", ".v")
"""the products whose rows are those of one attention head after the other"""
CONFIG = ("num_heads", "d_kv", "d_model", "is_gated_act", "dense_act_fn", "scale_decoder_outputs")

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_DTYPE, _VERSION = attrgetter("dtype"), attrgetter("_version")

preparing = RLock()
"""held from finding a model fit to having its halves: one thread at a time prepares, the others get what it has made"""


def why_not_t5(model: PreTrainedModel) -> str | None:
    """Why the T5 decoder cannot stand in for this model's own forward; None if it can."""
    if type(model) not in FAMILY:
        return f"it serves {' and '.join(one.__name__ for one in FAMILY)}, and this is a {type(model).__name__}"
    with preparing:
        watch = _watches.get(model)
        if watch is None or not watch.is_current():
            forget(model)
            watch = _watches[model] = _Watch(model)
        return watch.obstacle("decoder")


def t5_halves(model: PreTrainedModel, *, int8: bool) -> tuple[T5Encoder | None, T5Decoder]:
    """Encoder and decoder of a model that ``why_not_t5`` has just found fit, made anew if the model has changed.

    None where the encoder has been altered in a way that only its own forward serves, by hooks for example. Whoever
    asks holds ``preparing`` since then.
    """
    watch = _watches[model]
    if int8 not in watch.halves:
        embedding = model.get_input_embeddings().weight.detach()
        fit = watch.obstacle("encoder") is None
        encoder = T5Encoder(model.encoder, embedding, int8=int8) if fit else None
        watch.halves[int8] = encoder, T5Decoder(model, int8=int8)
    return watch.halves[int8]


def forget(model: PreTrainedModel) -> None:
    """Free what was prepared for a model, and the weights that it had then. The next call prepares it again.

    For a model that stays alive but has been moved or cast: until its next call, or its end, both copies are kept.
    """
    with preparing:
        watch = _watches.pop(model, None)
        if watch is not None:
            watch.release()


class _Watch:
    """What a model is made of, to notice at every call that it has changed, in far less time than a step takes."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.halves: dict[bool, tuple[T5Encoder | None, T5Decoder]] = {}
        self.release = finalize(model, _release, self.halves)
        """also called when the model goes"""
        self.release.atexit = False
        self._model = ref(model)
        self._children = list(_named_children("", model))
        self._modules = [child for child, _ in self._children]
        # Modules never replace these dictionaries. What has no parameters, or no modules below it, would not use any:
        # it is of a class that is known.
        self._attributes = [vars(model), *map(vars, self._modules)]
        self._held_modules = [own["_modules"] for own in self._attributes if own["_modules"]]
        self._held_weights = [own["_parameters"] for own in self._attributes if own["_parameters"]]
        self._hooks = [own[name] for own in self._attributes for name in _HOOKS]
        self._norms = [child for child in self._modules if hasattr(child, "variance_epsilon")]
        held = chain.from_iterable(map(dict.values, self._held_weights))
        self._weights = list(dict.fromkeys(weight for weight in held if weight is not None))  # tied ones once
        self._obstacles = self._find_obstacles()
        self._probes: Probes | None = None
        if self.obstacle("decoder") is None:
            # Views: they keep the old weights' memory from being given to new ones, so that an address says who is who.
            matrices = [weight for weight in self._weights if weight.dim() > 1]  # norms are used as they are
            products = (child for child, name in self._children if name.endswith(IN_HEADS))
            rows = {child.weight: model.config.d_kv for child in products if isinstance(child, nn.Linear)}
            rows[model.get_output_embeddings().weight] = 1
            self._probes = Probes((weight, rows.get(weight)) for weight in matrices)
        self._identity = self._identify()

    def is_current(self) -> bool:
        """No module or weight has been replaced, moved, cast or written to since, and no hook added.

        What is written through ``parameter.data`` leaves no mark but the values. The first one of each column is
        compared, of each row of the output matrix (a token), and of one row of each attention head's queries, keys and
        values: whole weights, columns, tokens and heads do not escape; some rows of a layer, and single values, may.
        """
        if self._identity != self._identify():
            return False
        # Without probes nothing is prepared that could be stale.
        return self._probes is None or self._probes.unchanged()

    def obstacle(self, part: str) -> str | None:
        """Why a part of the model ("encoder", "decoder") must run its own forward; None if it need not."""
        return next((reason for name, reason in self._obstacles if name.startswith((part, "lm_head", "shared"))), None)

    def _identify(self) -> list[object]:
        """All that is prepared for, but for numbers. What an id stands for is held, so that it stands for nothing
        else. Thousands of things are asked, so that the questions are put without a line of Python between them."""
        model, weights = self._model(), self._weights
        assert model is not None  # it keeps this object alive
        return [
            [getattr(model.config, name, None) for name in CONFIG],
            [norm.variance_epsilon for norm in self._norms],
            list(map(id, chain.from_iterable(map(dict.values, self._held_modules)))),
            list(map(type, self._modules)),
            list(map(bool, self._hooks)),
            list(map(contains, self._attributes, repeat("forward"))),
            list(map(id, chain.from_iterable(map(dict.values, self._held_weights)))),
            list(map(Tensor.data_ptr, weights)),
            list(map(_DTYPE, weights)),
            None if any(map(Tensor.is_inference, weights)) else list(map(_VERSION, weights)),
        ]

    def _find_obstacles(self) -> list[tuple[str, str]]:
        """(module's name, what is unusual about it); what concerns the whole model counts as the decoder's."""
        model = self._model()
        assert model is not None  # it keeps this object alive
        found = []
        everything: list[tuple[str, nn.Module]] = [("decoder", model)]
        everything += [(name, child) for child, name in self._children]
        for name, module in everything:
            what = "the model" if module is model else name
            if _calls_more(vars(module)):
                found.append((name, f"{what} has hooks or a forward of its own, which it would not call"))
            elif not _is_own(type(module).__module__):
                found.append((name, f"{what} is a {type(module).__name__}, not what transformers puts there"))
            elif module._parameters.get("bias") is not None:
                found.append((name, f"{what} has a bias, which it would not add"))
        for part in (model.encoder, model.decoder):
            if part.embed_tokens.weight is not model.shared.weight:
                found.append(("decoder", "encoder and decoder do not share their embeddings"))
        weights = self._weights
        if len({weight.device for weight in weights}) > 1:
            devices = sorted({str(weight.device) for weight in weights})
            found.append(("decoder", f"its weights are spread over {', '.join(devices)}"))
        if not all(weight.dtype in DTYPES for weight in weights):
            found.append(("decoder", "it has weights that are no floating-point numbers of 16 bits or more"))
        if any(weight.is_inference() for weight in weights):
            found.append(("decoder", "its weights were made in inference mode, where changes leave no mark"))
        return found


def _calls_more(attributes: dict[str, Any]) -> bool:
    """Whether a module with these attributes has hooks, or a forward that is not its class's."""
    return "forward" in attributes or any(attributes[name] for name in _HOOKS)


@cache
def _is_own(home: str) -> bool:
    """Whether classes of this module of Python are what transformers itself puts into a T5."""
    return home.startswith(OWN_MODULES)


def _release(halves: dict[bool, tuple[T5Encoder | None, T5Decoder]]) -> None:
    """Let go of what was prepared: buffers that wait refer to their decoder, which keeps them."""
    for _, decoder in halves.values():
        decoder.shelf.close()
    halves.clear()


_watches: WeakKeyDictionary[PreTrainedModel, _Watch] = WeakKeyDictionary()


def _named_children(name: str, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every module below ``module``, and its full name."""
    for key, child in module._modules.items():
        if child is not None:
            path = f"{name}.{key}" if name else key
            yield child, path
            yield from _named_children(path, child)
