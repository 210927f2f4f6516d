"""What a call asks of something that drafts and is no model of its own. A new source is one file and one test."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.runner import Runner


class DraftSource(ABC):
    """Stands in the place of the small model. Stateless: what it knows of a call lives in its runner."""

    @property
    def writes_alone(self) -> bool:
        """It always has something to propose, so that it can write whole texts (``bild.SmallOnly``)."""
        return False

    @property
    def has_head(self) -> bool:
        """It computes logits of the whole vocabulary, or of as much of it as a call's ``shortlist`` holds."""
        return False

    def check(self, large: PreTrainedModel) -> None:  # noqa: B027 (any model is fine unless a source says otherwise)
        """Raise ValueError where the source cannot draft for this model."""

    @abstractmethod
    def runners(
        self, large: PreTrainedModel, engine: str, max_length: int, listed: Tensor | None
    ) -> tuple[Runner, Runner]:
        """The large model's runner and the one that drafts, made together because they may share what they cache.

        Both are prefilled with the same inputs, the large model's first. ``engine``, ``max_length`` and ``listed``
        (of what drafts; None where it has no head) as in ``bild.engine.make_runner``.
        """
