"""A head for part of the vocabulary: a draft needs only the tokens that a task's outputs use.

The rows of a model's head are independent, so the logits that are left are the model's own, and a distribution over
them is the softmax over the list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.runner import Runner


def listed_ids(shortlist: Sequence[int], eos: Iterable[int], models: Mapping[str, PreTrainedModel]) -> Tensor:
    """The (V',) ids to keep, ascending, on the models' device; EOS is always among them.

    Raises:
        ValueError: the list is empty, or holds an id that one of the models does not know.
    """
    if not shortlist:
        raise ValueError("the shortlist is empty; give the token ids that the small model may draft, or None for all")
    ids = sorted({*map(int, shortlist), *eos})
    for name, model in models.items():
        size = int(model.get_output_embeddings().weight.shape[0])
        if ids[0] < 0 or ids[-1] >= size:
            wrong = ids[0] if ids[0] < 0 else ids[-1]
            raise ValueError(f"the shortlist holds the id {wrong}, but those of the {name} model are 0 to {size - 1}")
    return torch.tensor(ids, device=next(iter(models.values())).device)


class ShortlistRunner:
    """A runner that computes the whole head and shows the listed columns: the slow twin of a shorter head."""

    def __init__(self, runner: Runner, ids: Tensor) -> None:
        self._runner = runner
        self._ids = ids

    @property
    def lengths(self) -> list[int]:
        return self._runner.lengths

    @property
    def vocab_size(self) -> int:
        return self._runner.vocab_size

    @property
    def listed(self) -> Tensor:
        return self._ids

    @property
    def parted(self) -> Collection[int]:
        return self._runner.parted

    def prefill(self, **encoder_inputs: Any) -> None:
        self._runner.prefill(**encoder_inputs)

    def restart(self, rows: Sequence[int], **encoder_inputs: Any) -> None:
        self._runner.restart(rows, **encoder_inputs)

    def extend(self, tokens: Tensor, widths: Sequence[int]) -> Tensor:
        return self._runner.extend(tokens, widths)[..., self._ids]

    def rollback(self, lengths: Sequence[int]) -> None:
        self._runner.rollback(lengths)
