"""What an analysis runs, and the systems that this gives. Knows policies and their thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import bild
from bild.policies.base import Policy
from pipelines.cli import UserError, check_whole

LOSSLESS, BOTH, NO_ROLLBACK, NO_FALLBACK, MIXING = "lossless", "both", "no_rollback", "no_fallback", "mixing"


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """The grids of an analysis, instantiated by Hydra. Raises ``UserError`` on values outside the ranges given here."""

    draft_length: int = 10
    """lossless decoding is run with 1..draft_length; >= 1"""
    fallbacks: list[float]
    """grid of both ablations, with rollback and without; >= 0"""
    fixed_lengths: list[int]
    """draft lengths in place of fallback; >= 1"""
    thresholds: list[float]
    """of the oracle: the small model's token is replaced where the large model's probability of it is lower; >= 0"""
    bins: int = 10
    """of confidence"""

    def __post_init__(self) -> None:
        for name in ("draft_length", "bins"):
            check_whole(f"analysis.{name}", getattr(self, name))
        for name in ("fallbacks", "fixed_lengths", "thresholds"):
            values = getattr(self, name)
            if not isinstance(values, list) or len(values) == 0:
                raise UserError(f"analysis.{name}={values}: must be a list of numbers, such as [0.5,0.9]")
            if len(set(values)) < len(values):
                raise UserError(f"analysis.{name}={values}: holds a value twice; leave one out")
        for length in self.fixed_lengths:
            check_whole("analysis.fixed_lengths", length)
        for name in ("fallbacks", "thresholds"):
            for value in getattr(self, name):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                    raise UserError(f"analysis.{name}={value}: must be a number of at least 0")


@dataclass(frozen=True)
class System:
    """One policy of an analysis."""

    series: str
    """which part of the analysis it belongs to"""
    setting: float
    """what varies within the series: draft length, fallback or threshold"""
    policy: Policy

    @property
    def name(self) -> str:
        return f"{self.series}-{self.setting:g}"


def systems(settings: AnalysisSettings, around: Any) -> list[System]:
    """Everything that is run beside each model alone.

    Args:
        around: the ``bild.BigLittle`` whose rollback and draft length the ablations keep.

    Raises:
        UserError: another policy.
    """
    if not isinstance(around, bild.BigLittle):
        raise UserError(
            f"bild: the ablations take fallback or rollback away from BigLittle, not from {type(around).__name__}; "
            "use bild=big_little"
        )
    lengths = range(1, settings.draft_length + 1)
    return [
        *(System(LOSSLESS, length, bild.Speculative(draft_length=length)) for length in lengths),
        *(System(BOTH, value, replace(around, fallback=value)) for value in settings.fallbacks),
        *(System(NO_ROLLBACK, one, replace(around, fallback=one, rollback=math.inf)) for one in settings.fallbacks),
        *(System(NO_FALLBACK, n, replace(around, fallback=0, draft_length=n)) for n in settings.fixed_lengths),
        *(System(MIXING, value, bild.OracleMixing(threshold=value)) for value in settings.thresholds),
    ]
