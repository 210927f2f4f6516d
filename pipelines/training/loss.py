"""What a training minimizes: the interface of an objective, and cross-entropy per target token as the usual one.

Knows logits and labels; knows nothing about models or the trainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # label of padding


class Objective(ABC):
    """A loss for the trainer. Parts of an update (accumulated batches, processes) must add up to the whole."""

    def prepare(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The batch that is trained on, given one of the data and the updates done so far. Its labels are counted."""
        return batch

    def listening(self) -> AbstractContextManager[None]:
        """Around a pass of the model whose loss is wanted, for losses that need more of it than its outputs."""
        return nullcontext()

    def target(self, batch: dict[str, Tensor]) -> Any:
        """What the model's outputs for a prepared batch are compared with, on the batch's device."""
        return batch["labels"]

    @abstractmethod
    def __call__(self, outputs: Any, target: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Loss of one part; ``num_items_in_batch`` counts the labels of the whole update, over all parts."""


class TokenLoss(Objective):
    """Sum of cross-entropies over this part of an update, divided by the target tokens of the whole update.

    The parts of an update (accumulated batches, processes) then add up to the same loss and gradient as one large
    batch, whatever the lengths of their labels. Trainer's own division is not used: for T5 it is skipped, because
    its forward takes keyword arguments, and a mean of means weighs short batches too heavily.
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Loss of one part.

        Args:
            outputs: has ``logits`` (B, T, V).
            labels: (B, T) int64, ``IGNORED`` where there is no target.
            num_items_in_batch: target tokens of the whole update, over all parts and processes; None = of this part.
        """
        logits = outputs["logits"]
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        total = F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        items = labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / items
