"""The large model's own first layers as the small model (Kim et al. 2023, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from bild.engine import make_early_exit
from bild.engine.runner import Runner
from bild.engine.truncated import count_layers
from bild.sources.base import DraftSource


@dataclass(frozen=True)
class EarlyExit(DraftSource):
    """Drafts with the first ``layers`` of the large model's decoder layers and its head: no second model in memory, and
    on the static engine nothing is computed twice. Worth the more, the better a model is trained to write from there.

    Raises ValueError on values outside the ranges given here.
    """

    layers: int = 1
    """>= 1, and fewer than the large model's decoder has"""

    writes_alone = True
    has_head = True

    def __post_init__(self) -> None:
        if isinstance(self.layers, bool) or not isinstance(self.layers, int) or self.layers < 1:
            raise ValueError(f"layers={self.layers} must be a whole number >= 1")

    def check(self, large: PreTrainedModel) -> None:
        depth = count_layers(large)
        if depth is None:
            raise ValueError(
                f"{self} finds no list of layers in the decoder of {type(large).__name__}; use a small model"
            )
        if self.layers >= depth:
            raise ValueError(f"{self} must leave out a layer, but the large model's decoder has {depth}; lower layers")

    def runners(
        self, large: PreTrainedModel, engine: str, max_length: int, listed: Tensor | None
    ) -> tuple[Runner, Runner]:
        return make_early_exit(large, engine, max_length, self.layers, listed)
