"""A model that ends earlier: a view of its first decoder layers with its own norm and head.

Knows what transformers calls a decoder's layers; copies no weight and leaves the model as it is.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

LAYER_LISTS = ("block", "layers", "h")
"""What transformers' decoders call the list of their layers."""


def count_layers(model: PreTrainedModel) -> int | None:
    """How many layers its decoder has; None where they are not in a list under a known name."""
    decoder = model.get_decoder()
    name = _list_name(decoder)
    return None if name is None else len(getattr(decoder, name))


def truncated(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """The model with the first ``layers`` of its decoder layers, on the same modules."""
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder)
    view = inner = _opened(model)
    for key in filter(None, path.split(".")):
        opened = _opened(inner._modules[key])
        inner._modules[key] = opened
        inner = opened
    name = _list_name(decoder)
    assert name is not None  # the caller has counted them
    inner._modules[name] = nn.ModuleList(list(getattr(decoder, name))[:layers])
    return view


def _list_name(decoder: nn.Module) -> str | None:
    return next((name for name in LAYER_LISTS if isinstance(decoder._modules.get(name), nn.ModuleList)), None)


def _opened(module: Any) -> Any:
    """The same module under another object, whose children can be replaced."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    return view
