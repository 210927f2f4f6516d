"""How good the weights are right now: loss and quality of greedily decoded validation examples.

Knows a model, token ids and references; knows nothing about training or checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from operator import mul

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

import bild
from pipelines.decoding import scoring
from pipelines.decoding.decode import BatchDecoder, Decoding, decode_rows
from pipelines.training.loss import IGNORED, TokenLoss


class Validation:
    """Called for metrics named ``eval_loss`` and ``eval_bleu`` (or the rouge scores).

    With ``exits``, what each of the lower ones writes alone is scored too (``eval_layer1_bleu``), and the weighted mean
    over all of them decides which checkpoint is the best (``eval_exits_bleu``): the whole model alone is at its best
    long before its lower layers have learned to write.

    Args:
        rows: encoded examples (``input_ids``, ``attention_mask``, ``labels``).
        references: one text per row; None = the labels as text.
        metric: "bleu" or "rouge".
        max_new_tokens: of a decoded text, EOS included.
        exits: weights of decoder layers, the last one among them; None = that one alone.
        rank, processes: several processes share the rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Dataset,
        references: Sequence[str] | None,
        *,
        metric: str,
        max_new_tokens: int,
        batch_size: int,
        exits: Mapping[int, float] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._references = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows["labels"]]
        if references is not None:
            self._references = list(references)
        self._label = "validation" if rank == 0 else None
        self._mine = rows.select(range(rank, len(rows), processes))
        self._processes = processes
        self._metric = metric
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._exits = {} if exits is None else dict(sorted(exits.items()))

    @property
    def headline(self) -> str:
        """Name of the metric that decides which checkpoint is the best; higher is better."""
        return f"eval_{'exits_' if self._exits else ''}{scoring.HEADLINE[self._metric]}"

    @torch.no_grad()
    def __call__(self, alone: AbstractContextManager[None]) -> dict[str, float]:
        """The metrics; ``alone`` is held while this process works on its share and waits for no other."""
        lower = list(self._exits)[:-1]
        drafts = {f"layer{layer}_": bild.EarlyExit(layer) for layer in lower}
        with alone:
            mine = ([self._texts(draft) for draft in (None, *drafts.values())], *self._loss())
        shares = gather_object([mine])
        metrics = {"eval_loss": sum(share[1] for share in shares) / sum(share[2] for share in shares)}
        for place, part in enumerate(("", *drafts)):
            texts = [""] * len(self._references)
            for rank, (share, _, _) in enumerate(shares):
                texts[rank :: self._processes] = share[place]
            scores = scoring.score(self._metric, texts, self._references).scores
            metrics |= {f"eval_{part}{name}": float(value) for name, value in scores.items()}
        if self._exits:
            quality = [metrics[f"eval_{part}{scoring.HEADLINE[self._metric]}"] for part in (*drafts, "")]
            weights = self._exits.values()
            metrics[self.headline] = sum(map(mul, quality, weights)) / sum(weights)
        return metrics

    def _texts(self, draft: bild.EarlyExit | None) -> list[str]:
        """What the model writes for this process's rows; with ``draft``, what its lower layers write alone."""
        large, small = (None, self._model) if draft is None else (self._model, draft)
        decoder = BatchDecoder(large, small, self._tokenizer, Decoding(max_new_tokens=self._max_new_tokens))
        rows = decode_rows(decoder, bild.SmallOnly(), self._mine["input_ids"], self._batch_size, None, self._label)
        return [row.text for row in rows]

    def _loss(self) -> tuple[float, int]:
        """Sum of the cross-entropies of this process's rows, and their number of target tokens."""
        collate = DataCollatorForSeq2Seq(self._tokenizer, model=self._model, label_pad_token_id=IGNORED)
        loss = TokenLoss(label_smoothing=0.0)
        total, items = 0.0, 0
        by_length = sorted(self._mine, key=lambda row: len(row["labels"]))
        for start in range(0, len(by_length), self._batch_size):
            batch = collate(by_length[start : start + self._batch_size]).to(self._model.device)
            labels = batch.pop("labels")
            total += loss(self._model(**batch), labels, num_items_in_batch=1).item()
            items += int(labels.ne(IGNORED).sum())
        return total, items
