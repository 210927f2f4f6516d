"""transformers as a contestant: generate, assisted generation, prompt lookup."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.clock import EncoderClock, now
from benchmarks.methods import Batch, Decoded, written


class TransformersGenerate:
    """The large model by ``transformers.generate``: alone, or with the help that ``keywords`` name."""

    def __init__(self, name: str, large: PreTrainedModel, **keywords: Any) -> None:
        self.name = name
        self._large = large
        self._keywords = keywords
        assistant = keywords.get("assistant_model")
        self._clock = EncoderClock([large] if assistant is None else [large, assistant], large.device)

    @torch.no_grad()
    def decode(self, batch: Batch, max_new_tokens: int) -> Decoded:
        ids, mask = batch
        sequences = self._large.generate(
            ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, **self._keywords
        )
        return Decoded(written(sequences, self._large))

    def seconds(self, batch: Batch, max_new_tokens: int, written: int) -> tuple[float, float]:
        with self._clock.attached():
            start = now(self._large.device)
            self.decode(batch, max_new_tokens)
            return now(self._large.device) - start, self._clock.seconds()


class TransformersAssisted(TransformersGenerate):
    """Assisted generation. What it has learnt of one sentence (the threshold of confidence, the length of a draft) is
    put back before the next, or the order of sentences would count."""

    def __init__(self, name: str, large: PreTrainedModel, small: PreTrainedModel) -> None:
        super().__init__(name, large, assistant_model=small)
        self._small = small
        self._fresh = copy.deepcopy(small.generation_config)

    def decode(self, batch: Batch, max_new_tokens: int) -> Decoded:
        self._small.generation_config = copy.deepcopy(self._fresh)
        return super().decode(batch, max_new_tokens)
