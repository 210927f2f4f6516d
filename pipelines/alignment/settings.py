"""What the user may say about an alignment: how the large model answers and where the small one starts.

Knows names, ranges and defaults; knows nothing about models or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipelines.cli import UserError, check_whole

INITS = ("finetuned", "pretrained")


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """The ``align`` node of conf/align.yaml."""

    init: str  # where the small model starts: "finetuned" (if there is one) or "pretrained"
    generation_max_length: int | None  # tokens of an output, EOS included; None = task.target_length
    temperature: float  # 0 = greedy
    samples: int  # outputs per input; more than 1 only with a temperature
    shard_rows: int  # inputs per file: what a killed run loses at most
    report_limit: int | None  # validation rows for the comparison before and after; None = all
    outputs: str  # folder of the large model's outputs

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UserError(f"align.init={self.init}: choose one of {', '.join(INITS)}")
        check_whole("align.generation_max_length", self.generation_max_length, null="the task's target_length")
        check_whole("align.samples", self.samples)
        check_whole("align.shard_rows", self.shard_rows)
        check_whole("align.report_limit", self.report_limit, null="all validation examples")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"align.temperature={self.temperature}: give a number from 0 (greedy) up")
        if self.samples > 1 and self.temperature == 0:
            raise UserError(
                f"align.samples={self.samples} with align.temperature=0 would repeat the greedy output; "
                "set align.temperature=1, or leave align.samples at 1"
            )

    def max_new_tokens(self, target_length: int) -> int:
        """Tokens that the large model may write, EOS included."""
        return target_length if self.generation_max_length is None else self.generation_max_length

    def identity(self, target_length: int, seed: int) -> dict[str, Any]:
        """What decides the outputs, under the names that the user gives it; the seed only where something is drawn."""
        keys = {
            "align.generation_max_length": self.max_new_tokens(target_length),
            "align.temperature": float(self.temperature),
            "align.samples": self.samples,
            "align.shard_rows": self.shard_rows,
        }
        return {**keys, "seed": seed} if self.temperature > 0 else keys
