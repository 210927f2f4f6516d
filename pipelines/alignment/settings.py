"""What the user may say about an alignment: how the large model answers, where the small one starts, what it learns.

Knows names, ranges and defaults; knows nothing about models or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipelines.alignment.divergence import Divergence
from pipelines.cli import UserError, check_whole

INITS = ("finetuned", "pretrained")
METHODS = ("sequence", "distill")
# What distill alone uses, and the values of conf/align.yaml, which stand for nobody having asked.
OF_DISTILL = {
    "divergence": "forward_kl",
    "beta": 0.5,
    "distill_temperature": 1.0,
    "top_k": None,
    "student_fraction": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """The ``align`` node of conf/align.yaml."""

    method: str  # "sequence": cross-entropy on the large model's outputs; "distill": its distributions there
    divergence: str  # of distill: "forward_kl", "reverse_kl", "jsd" or "total_variation"
    beta: float  # of jsd: the large model's share of the mixture
    distill_temperature: float  # of both distributions while they are compared
    top_k: int | None  # compare the large model's so many likeliest tokens, the others as one; None = all
    student_fraction: float  # of distill: share of the rows whose text the small model draws in place of an output
    init: str  # where the small model starts: "finetuned" (if there is one) or "pretrained"
    generation_max_length: int | None  # tokens of an output, EOS included; None = task.target_length
    temperature: float  # 0 = greedy
    samples: int  # outputs per input; more than 1 only with a temperature
    shard_rows: int  # inputs per file: what a killed run loses at most
    report_limit: int | None  # validation rows for the comparison before and after; None = all
    shortlist_min_count: int  # the shortlist holds the tokens that occur so often in the outputs
    outputs: str  # folder of the large model's outputs

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"align.method={self.method}: choose one of {', '.join(METHODS)}")
        check_whole("align.top_k", self.top_k, null="all tokens")
        if not 0 <= self.student_fraction <= 1:
            raise UserError(f"align.student_fraction={self.student_fraction}: give a number from 0 to 1")
        self.chosen_divergence()
        for name, unasked in OF_DISTILL.items():
            value = getattr(self, name)
            if not self.distills and value != unasked:
                raise UserError(
                    f"align.{name}={value} with align.method={self.method}: of no use there; leave it out, or choose "
                    "align.method=distill"
                )
        if self.init not in INITS:
            raise UserError(f"align.init={self.init}: choose one of {', '.join(INITS)}")
        check_whole("align.generation_max_length", self.generation_max_length, null="the task's target_length")
        check_whole("align.samples", self.samples)
        check_whole("align.shard_rows", self.shard_rows)
        check_whole("align.shortlist_min_count", self.shortlist_min_count)
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

    def chosen_divergence(self) -> Divergence:
        """What distill minimizes.

        Raises:
            UserError: a value out of range.
        """
        return Divergence(name=self.divergence, beta=self.beta, temperature=self.distill_temperature, top_k=self.top_k)

    @property
    def distills(self) -> bool:
        """Whether the small model learns distributions."""
        return self.method == "distill"

    def method_fields(self) -> dict[str, Any]:
        """What decides the training beside its data, under the names that the user gives it; no setting without use."""
        if not self.distills:
            return {"method": self.method}
        fields = {"method": self.method, "divergence": self.divergence}
        if self.divergence == "jsd":
            fields["beta"] = float(self.beta)
        temperature, fraction = float(self.distill_temperature), float(self.student_fraction)
        return {**fields, "distill_temperature": temperature, "top_k": self.top_k, "student_fraction": fraction}

    def method_label(self) -> str:
        """The same in a file's name; what is at its neutral value is left out."""
        if not self.distills:
            return self.method
        label = f"{self.method}-{self.divergence}"
        label += f"{self.beta:g}" if self.divergence == "jsd" else ""
        label += f"-temperature{self.distill_temperature:g}" if self.distill_temperature != 1 else ""
        label += f"-top{self.top_k}" if self.top_k is not None else ""
        return label + (f"-student{self.student_fraction:g}" if self.student_fraction > 0 else "")

    def identity(self, target_length: int, seed: int) -> dict[str, Any]:
        """What decides the outputs, under the names that the user gives it; the seed only where something is drawn."""
        keys = {
            "align.generation_max_length": self.max_new_tokens(target_length),
            "align.temperature": float(self.temperature),
            "align.samples": self.samples,
            "align.shard_rows": self.shard_rows,
        }
        return {**keys, "seed": seed} if self.temperature > 0 else keys
