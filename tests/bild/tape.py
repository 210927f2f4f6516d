"""What a CUDA graph does to the work that it captures, on any device: every operation is written down with its very
tensors and host numbers, and a replay executes the same operations on the same memory, whatever has changed outside.

Refuses what a capture refuses, and leaves nothing readable in scratch memory between replays, which graphs of one pool
share. Operations on the host (numbers of Python, tests of them) are not seen, so they are baked in, as in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

SYNCHRONIZING = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount",
    "aten::repeat_interleave.Tensor",
}  # fmt: skip
"""They wait for the device, or make tensors whose shape depends on numbers in it."""
FROM_THE_HOST = {"aten::lift_fresh", "aten::_pin_memory"}
"""A tensor of Python numbers: a copy from memory that is gone at the next replay."""
TO_THE_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item, Tensor.__bool__, Tensor.__int__, Tensor.__float__}


class CaptureError(RuntimeError):
    """What a capture would not have survived."""


@dataclass
class Tape:
    """A capturer (``bild.engine.capture.Capturer``), and what it has done so far."""

    recorded: int = 0
    replayed: int = 0
    names: list[list[str]] = field(default_factory=list)
    """of each recording, its operations"""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        work()  # as on CUDA, once before it counts
        tape = _Written()
        with _NothingReachesTheHost(), tape:
            work()
        tape.spoil()
        self.recorded += 1
        self.names.append([name for name, *_ in tape.operations])

        def replay() -> None:
            self.replayed += 1
            with _disable_current_modes():  # a replay is one launch, whatever it holds
                for _, operation, arguments, keywords, outputs in tape.operations:
                    _write(outputs, operation(*arguments, **keywords))
                tape.spoil()

        return replay


class _NothingReachesTheHost(TorchFunctionMode):
    """Some ways to the host pass by the dispatcher."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in TO_THE_HOST:
            raise CaptureError(f"{function.__name__}() of a tensor waits for the device")
        return function(*args, **({} if kwargs is None else kwargs))


class _Written(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, Any, Any, Any, list[Tensor]]] = []
        self._scratch: dict[int, Tensor] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = {} if kwargs is None else kwargs
        name = operation._schema.name
        full = f"{name}.{operation._overloadname}"
        if name in SYNCHRONIZING | FROM_THE_HOST or full in SYNCHRONIZING:
            raise CaptureError(f"{name} cannot be captured")
        given = [one for one in tree_leaves((args, keywords)) if isinstance(one, Tensor)]
        if name.startswith("aten::index") and any(one.dtype == torch.bool for one in given[1:]):
            raise CaptureError(f"{name} with a mask cannot be captured: how much it selects depends on numbers")
        result = operation(*args, **keywords)
        if operation.is_view:
            return result  # the same memory under another shape
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        known = {one.untyped_storage()._cdata for one in given}
        fresh = [one for one in outputs if one.untyped_storage()._cdata not in known]
        for one in fresh:
            self._scratch[id(one)] = one
        self.operations.append((name, operation, args, keywords, outputs))
        return result

    def spoil(self) -> None:
        """Scratch is given to the next graph of the pool."""
        for one in self._scratch.values():
            if one.is_floating_point():
                one.fill_(torch.nan)
            elif one.dtype != torch.bool:
                one.fill_(-(2**31))


def _write(outputs: list[Tensor], result: Any) -> None:
    """What an operation makes anew stands where it stood before; what it wrote in place is there already."""
    for held, made in zip(outputs, [one for one in tree_leaves(result) if isinstance(one, Tensor)], strict=True):
        if made.untyped_storage()._cdata != held.untyped_storage()._cdata:
            held.copy_(made)
