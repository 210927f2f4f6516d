"""This package's decoder as a contestant: a policy on an engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

import bild
from benchmarks.clock import RunnerClock, now
from benchmarks.methods import Batch, Decoded, written
from bild.engine import make_runner
from bild.policies.base import Policy


class BildMethod:
    """``bild.generate`` with one policy and engine."""

    def __init__(
        self, label: str, policy: Policy, engine: str, large: PreTrainedModel | None, small: PreTrainedModel | None
    ) -> None:
        self.name = f"{label}, {engine}"
        self.label = label
        self.engine = engine
        self._policy = policy
        self._large = large if policy.uses_large else None
        self._small = small if policy.uses_small else None
        self._models = [model for model in (self._large, self._small) if model is not None]

    @property
    def is_lossless(self) -> bool:
        """Writes what the large model alone writes on the same engine."""
        if isinstance(self._policy, bild.BigLittle):
            return self._policy.fallback > 1 or (self._policy.rollback == 0 and self._policy.verify_eos)
        return not self._policy.uses_small

    def decode(self, batch: Batch, max_new_tokens: int) -> Decoded:
        ids, mask = batch
        out = bild.generate(
            self._large,
            self._small,
            ids,
            attention_mask=mask,
            policy=self._policy,
            max_new_tokens=max_new_tokens,
            engine=self.engine,
        )
        return Decoded(written(out.sequences, self._models[0]), out.stats)

    def seconds(self, batch: Batch, max_new_tokens: int, written: int) -> tuple[float, float]:
        """The encoders are timed right afterwards: an engine may have one of its own, which no hook can hear."""
        device = batch[0].device
        start = now(device)
        self.decode(batch, max_new_tokens)
        return now(device) - start, self._encoder_seconds(batch, max_new_tokens)

    def share_outside_models(self, batches: Sequence[Batch], max_new_tokens: int) -> float:
        """Share of decoding, encoders left out, that passes outside the runners: policy, loop, set-up."""
        device = batches[0][0].device
        kinds = {type(make_runner(model, self.engine, 2)) for model in self._models}
        clock = RunnerClock(list(kinds), device)
        outside = decoding = 0.0
        for batch in batches:
            clock.seconds = 0.0
            with clock.attached():
                start = now(device)
                self.decode(batch, max_new_tokens)
                total = now(device) - start
            outside += total - clock.seconds
            decoding += total - self._encoder_seconds(batch, max_new_tokens)
        return outside / decoding

    @torch.inference_mode()
    def _encoder_seconds(self, batch: Batch, max_new_tokens: int) -> float:
        """What reading a source takes beyond reading it ready encoded, summed over the models that take part. With the
        room that decoding has, for which an engine has prepared by then."""
        ids, mask = batch
        seconds = 0.0
        for model in self._models:
            runner = make_runner(model, self.engine, 1 + max_new_tokens)
            hidden = torch.randn(*ids.shape, model.config.d_model, dtype=model.dtype, device=ids.device)
            encoded = BaseModelOutput(last_hidden_state=hidden)
            start = now(ids.device)
            runner.prefill(input_ids=ids, attention_mask=mask)
            middle = now(ids.device)
            runner.prefill(encoder_outputs=encoded, attention_mask=mask)
            seconds += max(0.0, 2 * middle - start - now(ids.device))
        return seconds
