"""Distillation as a training objective: the large model's distributions, on its texts or the small one's own.

Knows two models and token ids; knows nothing about files, tasks or the trainer. Source: Agarwal et al., On-Policy
Distillation (ICLR 2024), Algorithm 1, and Zhou et al., DistillSpec (ICLR 2024).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import bild
from pipelines.alignment.divergence import Divergence, total
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.training.loss import IGNORED, Objective


@dataclass(frozen=True)
class Taught:
    """What the small model's logits are compared with."""

    logits: Tensor
    """(B, T, W) of the large model"""
    counted: Tensor
    """(B, T) bool; false where a row has ended"""


class Distillation(Objective):
    """The sum of a divergence over this part of an update, by the tokens of the whole update.

    A row trains either on its labels or on a text that the student draws for its source, new at every step, from the
    weights of that step. Which of the two, and what is drawn, follows from the seed, the step and the row's content:
    it is the same in any batch, process or resumed run.

    Args:
        teacher: the large model; put into eval mode and onto the device that trains, its weights do not change.
        student: the model that is trained, without wrappers.
        student_fraction: share of the rows whose text the student draws, from 0 to 1.
        max_new_tokens: of such a text, EOS included.
        engine: that draws it, see ``bild.generate``.
        seed: of the draws.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        divergence: Divergence,
        *,
        student_fraction: float,
        max_new_tokens: int,
        engine: str,
        seed: int,
    ) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._student = student
        self._tokenizer = tokenizer
        self._divergence = divergence
        self._student_fraction = student_fraction
        self._decoding = Decoding(max_new_tokens=max_new_tokens, do_sample=True, engine=engine, seed=seed)

    def prepare(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The batch with the labels of some rows replaced by the student's own texts."""
        if self._student_fraction == 0:
            return batch
        inputs = [
            ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        labels = [row[row.ne(IGNORED)] for row in batch["labels"]]
        draws = [_draws(self._decoding.seed, step, *row) for row in zip(inputs, labels, strict=True)]
        drawn = [row for row, (uniform, _) in enumerate(draws) if uniform < self._student_fraction]
        if drawn:
            self._student.eval()  # the trainer puts it back into training mode at every part of an update
            decoder = BatchDecoder(None, self._student, self._tokenizer, self._decoding)
            texts = decoder.decode(bild.SmallOnly(), [inputs[row] for row in drawn], [draws[row][1] for row in drawn])
            for row, text in zip(drawn, texts, strict=True):
                labels[row] = torch.tensor(text.tokens)
        padded = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        before = self._student.prepare_decoder_input_ids_from_labels(labels=padded)
        return {**batch, "labels": padded, "decoder_input_ids": before}

    @torch.no_grad()
    def target(self, batch: dict[str, Tensor]) -> Taught:
        """The teacher's logits for the tokens of a prepared batch."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        teacher = self._teacher.to(
            batch["labels"].device
        )  # where the trainer has put the student; from then on no work
        return Taught(teacher(**inputs, use_cache=False).logits, batch["labels"].ne(IGNORED))

    def __call__(self, outputs: Any, target: Taught, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Loss of one part; ``num_items_in_batch`` as for ``TokenLoss``."""
        items = target.counted.sum() if num_items_in_batch is None else num_items_in_batch
        return total(self._divergence, outputs["logits"], target.logits, target.counted) / items


def _draws(seed: int, step: int, inputs: list[int], labels: Tensor) -> tuple[float, int]:
    """A number in [0, 1) and one that names a random stream, for one row at one step."""
    digest = hashlib.sha256(repr((seed, step, inputs, labels.tolist())).encode()).digest()
    return int.from_bytes(digest[:7], "little") / 2**56, int.from_bytes(digest[8:16], "little")
