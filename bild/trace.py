"""Who wrote each token and why. Filled by the round loop once a round, read by people and reports.

Reasons of a token: "draft" (the small model's, accepted), "discarded" (the small model's, thrown away), "fallback" (the
large model's, after confidence ended the draft), "rollback" (the large model's, in place of a rejected draft), "bonus"
(the large model's, after a draft that its cap ended and that stands), "large" (the large model's, without a draft).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bild.types import DecodeOutput, RowStats, TokenTrace


class Recorder:
    """Counts and traces of B rows."""

    def __init__(self, batch_size: int) -> None:
        self._counts = [_zeros() for _ in range(batch_size)]
        self._traces: list[list[TokenTrace]] = [[] for _ in range(batch_size)]

    def step(self, model: str, taking_part: Sequence[bool]) -> None:
        """A pass of the "small" or "large" model, and which rows took part."""
        for counts, takes_part in zip(self._counts, taking_part, strict=True):
            counts[f"{model}_steps"] += takes_part

    def round(
        self,
        row: int,
        *,
        drafted: Sequence[int],
        confidence: Sequence[float],
        stopped: bool,
        n_accepted: int,
        n_written: int,
        next_token: int,
        large_confidence: float,
    ) -> None:
        """A settled round of one row: the small model's tokens and its confidence in each, how many of them were
        accepted and how many tokens written, the large model's token and its confidence."""
        # A stopping criterion may have cut accepted tokens: discarded, but not rolled back.
        kept = min(n_accepted, n_written)
        counts, trace = self._counts[row], self._traces[row]
        turn = counts["rounds"]
        for place, (token, sure) in enumerate(zip(drafted, confidence, strict=True)):
            trace.append(TokenTrace(token, "small", turn, sure, "draft" if place < kept else "discarded"))
        if n_written > n_accepted:
            reason = _reason(len(drafted), n_accepted, stopped)
            trace.append(TokenTrace(next_token, "large", turn, large_confidence, reason))
        counts["rounds"] += 1
        counts["drafted"] += len(drafted)
        counts["accepted"] += kept
        counts["rolled_back"] += len(drafted) - n_accepted
        counts["fallbacks"] += stopped
        counts["tokens"] += n_written

    def take(self, row: int) -> tuple[RowStats, list[TokenTrace]]:
        """The counts and the trace of one row, which begins anew."""
        taken = RowStats(**self._counts[row]), self._traces[row]
        self._counts[row], self._traces[row] = _zeros(), []
        return taken

    def stats(self) -> list[RowStats]:
        """One entry per row."""
        return [RowStats(**counts) for counts in self._counts]

    def traces(self) -> list[list[TokenTrace]]:
        """One list per row."""
        return self._traces


def with_layers(trace: list[TokenTrace], taken: Sequence[int]) -> list[TokenTrace]:
    """A trace in which every token is the large model's, with the layers that each took."""
    return [replace(token, layers=layers) for token, layers in zip(trace, taken, strict=True)]


def _zeros() -> dict[str, int]:
    return dict.fromkeys(RowStats.__dataclass_fields__, 0)


def _reason(drafted: int, accepted: int, stopped: bool) -> str:
    """Why the large model wrote a token."""
    if accepted < drafted:
        return "rollback"
    if stopped:
        return "fallback"
    return "bonus" if drafted > 0 else "large"


def write_json_lines(output: DecodeOutput, path: str | Path) -> None:
    """One JSON object per row: its counts, its tokens, who read it apart from others, how many small steps ran,
    and whether whole draft turns did at once. Overwrites ``path``."""
    columns = zip(output.stats, output.trace, output.parted, output.small_steps_run, strict=True)
    with open(path, "w", encoding="utf-8") as file:
        for stats, trace, parted, run in columns:
            tokens = [asdict(token) for token in trace]
            row = {"stats": asdict(stats), "trace": tokens, "parted": parted, "small_steps_run": run}
            file.write(json.dumps(row | {"drafted_at_once": output.drafted_at_once}) + "\n")
