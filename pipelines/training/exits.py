"""The training loss of a T5 that can also write from layers below its last: a weighted mean of every exit's loss.

Knows transformers' T5 decoder; knows nothing about the trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from bild.engine.prepared import FAMILY
from pipelines.cli import UserError
from pipelines.training.loss import TokenLoss


class ExitLoss(TokenLoss):
    """sum w_i L_i / sum w_i over decoder layers i, L_i = ``TokenLoss`` of the model's norm and head on what layer i
    passes on.

    BiLD's early exit (Kim et al. 2023, section 4.3) is (L_1 + L_last) / 2, that is {1: 1, last: 1}; CALM's (Schuster et
    al. 2022, equation 6) w_i = i / sum j over all layers, {1: 1, 2: 2, ...}.

    Args:
        weights: by layer, counted from 1; the last layer must be among them.

    Raises:
        UserError: another kind of model, a layer that it does not have, or no weight for its last one.
    """

    def __init__(self, model: PreTrainedModel, weights: Mapping[int, float], label_smoothing: float) -> None:
        super().__init__(label_smoothing)
        if not isinstance(model, FAMILY):
            raise UserError(
                f"train.exits: is for T5 and mT5, and this is a {type(model).__name__}; use train.exits=null"
            )
        self._model: Any = model
        self._depth = len(model.decoder.block)
        absent = [layer for layer in weights if layer > self._depth]
        if absent:
            raise UserError(f"train.exits: there is no layer {absent[0]}, the decoder's last is {self._depth}")
        if self._depth not in weights:
            raise UserError(f"train.exits: give the last layer, {self._depth}, a weight too: it writes as well")
        self._weights = {layer: weight / sum(weights.values()) for layer, weight in weights.items()}
        self._passed_on: dict[int, Tensor] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        # Not transformers' output_hidden_states: that would leave hooks behind, and with them no fast engine validates.
        exits = [layer for layer in self._weights if layer != self._depth]
        blocks = self._model.decoder.block
        hooks = [blocks[layer - 1].register_forward_hook(partial(self._keep, layer)) for layer in exits]
        try:
            yield
        finally:
            self._passed_on.clear()
            for hook in hooks:
                hook.remove()

    def _keep(self, layer: int, module: Any, inputs: Any, output: Any) -> None:
        self._passed_on[layer] = output[0]

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """As ``TokenLoss``, of a pass of the model inside ``listening``."""
        total = self._weights[self._depth] * super().__call__(outputs, labels, num_items_in_batch)
        for layer, hidden in self._passed_on.items():
            # Computed again for the gradient: the logits of every exit at once would not fit beside each other.
            loss = checkpoint(self._loss_at_exit, hidden, labels, num_items_in_batch, use_reentrant=False)
            total = total + self._weights[layer] * loss
        return total

    def _loss_at_exit(self, hidden: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        decoder, config = self._model.decoder, self._model.config
        ready = decoder.dropout(decoder.final_layer_norm(hidden))
        if getattr(config, "scale_decoder_outputs", False):  # mT5 has no such field and never scales
            ready = ready * config.d_model**-0.5
        return super().__call__({"logits": self._model.lm_head(ready)}, labels, num_items_in_batch)


def loss_of(model: PreTrainedModel, exits: Mapping[int, float] | None, label_smoothing: float) -> TokenLoss:
    """The loss of a training whose ``train.exits`` are these."""
    return TokenLoss(label_smoothing) if exits is None else ExitLoss(model, exits, label_smoothing)
