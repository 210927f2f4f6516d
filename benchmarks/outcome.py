"""What came of a comparison, method by method: cost beside the peers, and what the output is worth.

Knows the outputs and times of all methods; knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks import figures
from benchmarks.methods import BASELINE, Batch, Decoded, Method
from benchmarks.own import BildMethod
from benchmarks.texts import Text, bleu, margin
from benchmarks.timing import Times


class Outcome:
    """Outputs and times of ``methods`` on ``batches`` of one row each."""

    def __init__(
        self,
        methods: Sequence[Method],
        batches: Sequence[Batch],
        outputs: dict[str, list[Decoded]],
        times: dict[str, Times],
    ) -> None:
        self._peers = [method.name for method in methods if not isinstance(method, BildMethod)]
        self._batches = batches
        self._outputs = outputs
        self._rows = {name: [row for one in decoded for row in one.tokens] for name, decoded in outputs.items()}
        self._times = times

    def entry(
        self, method: Method, large: PreTrainedModel, texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """One method's part of the result, as described in results/README.md."""
        mine, theirs = self._rows[method.name], self._rows[BASELINE]
        own, baseline = self._times[method.name], self._times[BASELINE]
        tokens = sum(map(len, mine))
        entry: dict[str, Any] = {
            "method": method.name,
            "tokens": tokens,
            "end_to_end": figures.time_figures(own.total, baseline.total, tokens),
            "decode_only": figures.time_figures(own.decoding, baseline.decoding, tokens),
            "decode_only_speedup_over": {
                peer: figures.median_speedup(own.decoding, self._times[peer].decoding)
                for peer in self._peers
                if peer != method.name
            },
            "exact": figures.share_identical(mine, theirs),
            "margins": None,
            "bleu": bleu(mine, texts, tokenizer),
            "milliseconds": (1000 * own.total).round(3).tolist(),
            "encoder_milliseconds": (1000 * own.encoder).round(3).tolist(),
        }
        if not isinstance(method, BildMethod) or method.is_lossless:
            entry["margins"] = [
                margin(large, batch, row, other)
                for batch, row, other in zip(self._batches, mine, theirs, strict=True)
                if row != other
            ]
        if isinstance(method, BildMethod):
            entry |= {"engine": method.engine, "label": method.label, **self._against_alone(method)}
        return entry

    def _against_alone(self, method: BildMethod) -> dict[str, Any]:
        """Counts, and the policy beside each model alone on the same engine."""
        large, small = f"large alone, {method.engine}", f"small alone, {method.engine}"
        sums = figures.counts(
            list(chain.from_iterable(one.stats for one in self._outputs[method.name] if one.stats is not None))
        )
        cost_ratio = self._seconds_per_token(small) / self._seconds_per_token(large)
        own, alone = self._times[method.name].decoding, self._times[large].decoding
        return {
            "counts": sums,
            **figures.rates(sums),
            "same_as_large_alone": figures.share_identical(self._rows[method.name], self._rows[large]),
            "cost_ratio": cost_ratio,
            "decode_only_speedup_over_large_alone": figures.speedup(own, alone),
            "predicted_speedup_over_large_alone": figures.predicted_speedup(sums, cost_ratio),
        }

    def _seconds_per_token(self, name: str) -> float:
        return float(self._times[name].decoding.sum(-1).min() / sum(map(len, self._rows[name])))
