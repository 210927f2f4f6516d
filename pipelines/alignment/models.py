"""The models of an alignment: the large one that answers, the small one before and after.

Knows model descriptions and checkpoints; knows nothing about data, training or figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset

from pipelines.decoding.pair import check_tokenizers
from pipelines.models.loading import LoadedModel, Model, check_trainable, choose_checkpoint, load


@dataclass(frozen=True, kw_only=True)
class Models:
    """Where each model of an alignment comes from."""

    large: Model
    small: Model
    task_name: str
    init: str
    """where the small model starts: "finetuned" (pre-trained if there is none, as the note says) or "pretrained" """
    pairs: Dataset
    """source, target: what a new vocabulary is trained on, for init=pretrained of a model that starts from scratch"""
    seed: int
    """of new weights"""
    device: torch.device
    dtype: torch.dtype
    """for decoding"""

    def pair(self) -> tuple[LoadedModel, LoadedModel]:
        """The large model, ready to decode, and the small one's starting point, in float32 on the CPU.

        Raises:
            UserError: a model that cannot be loaded or trained, or two tokenizers.
        """
        large, start = load(self.large, self.task_name, "large"), self._start(self.init)
        check_trainable(large)
        check_tokenizers(large.tokenizer, start.tokenizer)
        return self.ready(large), start

    def before(self) -> LoadedModel:
        """The small model that a user would have without alignment: fine-tuned if there is one, else the start."""
        path, _ = choose_checkpoint(replace(self.small, aligned=False), self.task_name, "small")
        return self.ready(self._start(self.init if path is None else "finetuned"))

    def after(self, out: Path) -> LoadedModel:
        """The finished small model in ``out``."""
        there = replace(self.small, path=str(out), tokenizer=None, revision=None, init="pretrained")
        loaded = self.ready(load(there, self.task_name, "finetune"))
        return replace(loaded, note=f"{self.small.name}: aligned checkpoint {out}")

    def _start(self, init: str) -> LoadedModel:
        small = replace(self.small, aligned=False)
        if init == "finetuned":
            return load(small, self.task_name, "small")
        texts = (text for column in ("source", "target") for text in self.pairs[column])
        return load(small, self.task_name, "finetune", texts=texts, seed=self.seed)

    def ready(self, loaded: LoadedModel) -> LoadedModel:
        """The same model for decoding: on the device, in the dtype, without dropout."""
        return replace(loaded, model=loaded.model.to(device=self.device, dtype=self.dtype).eval())
