"""Who wrote each token and why. Filled by the round loop once a round, read by people and reports.

Reasons of a token: "draft" (the small model's, accepted), "discarded" (the small model's, thrown away), "fallback" (the
large model's, after confidence ended the draft), "rollback" (the large model's, in place of a rejected draft), "bonus"
(the large model's, after a draft that its cap ended and that stands), "large" (the large model's, without a draft).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from bild.types import DecodeOutput, Draft, RowStats, TokenTrace


class Recorder:
    """Counts and traces of B rows."""

    def __init__(self, batch_size: int) -> None:
        self._counts = [dict.fromkeys(RowStats.__dataclass_fields__, 0) for _ in range(batch_size)]
        self._traces: list[list[TokenTrace]] = [[] for _ in range(batch_size)]

    def step(self, model: str, taking_part: Tensor) -> None:
        """A pass of the "small" or "large" model; (B,) bool rows that took part."""
        for row in taking_part.nonzero().squeeze(-1).tolist():
            self._counts[row][f"{model}_steps"] += 1

    def round(
        self,
        *,
        was_open: Tensor,
        draft: Draft,
        n_accepted: Tensor,
        n_written: Tensor,
        next_tokens: Tensor,
        large_confidence: Tensor,
    ) -> None:
        """A settled round, every argument (B,): rows that took part, accepted and written tokens, the large model's
        token and its confidence."""
        drafts, confidence = draft.tokens.tolist(), draft.confidence.tolist()
        columns = torch.stack([draft.n_drafted, draft.stopped.long(), n_accepted, n_written, next_tokens], 1).tolist()
        large_confidences = large_confidence.tolist()
        for row in was_open.nonzero().squeeze(-1).tolist():
            drafted, stopped, accepted, written, next_token = columns[row]
            # A stopping criterion may have cut accepted tokens: discarded, but not rolled back.
            kept = min(accepted, written)
            turn = self._counts[row]["rounds"]
            self._traces[row] += [
                TokenTrace(token, "small", turn, sureness, "draft" if place < kept else "discarded")
                for place, (token, sureness) in enumerate(
                    zip(drafts[row][:drafted], confidence[row][:drafted], strict=True)
                )
            ]
            if written > accepted:
                reason = _reason(drafted, accepted, bool(stopped))
                self._traces[row].append(TokenTrace(next_token, "large", turn, large_confidences[row], reason))
            counts = self._counts[row]
            counts["rounds"] += 1
            counts["drafted"] += drafted
            counts["accepted"] += kept
            counts["rolled_back"] += drafted - accepted
            counts["fallbacks"] += stopped
            counts["tokens"] += written

    def stats(self) -> list[RowStats]:
        """One entry per row."""
        return [RowStats(**counts) for counts in self._counts]

    def traces(self) -> list[list[TokenTrace]]:
        """One list per row."""
        return self._traces


def _reason(drafted: int, accepted: int, stopped: bool) -> str:
    """Why the large model wrote a token."""
    if accepted < drafted:
        return "rollback"
    if stopped:
        return "fallback"
    return "bonus" if drafted > 0 else "large"


def write_json_lines(output: DecodeOutput, path: str | Path) -> None:
    """One JSON object per row: its counts and its tokens. Overwrites ``path``."""
    with open(path, "w", encoding="utf-8") as file:
        for stats, trace in zip(output.stats, output.trace, strict=True):
            row = {"stats": asdict(stats), "trace": [asdict(token) for token in trace]}
            file.write(json.dumps(row) + "\n")
