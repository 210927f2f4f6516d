"""One decoded example: its text, its tokens, its counts and who wrote what. Knows the decoder's output and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bild


@dataclass(frozen=True)
class DecodedRow:
    """One written text."""

    text: str
    tokens: list[int]
    """token ids, EOS included, without start and padding"""
    stats: bild.RowStats
    trace: list[bild.TokenTrace]


def kept_tokens(trace: Sequence[bild.TokenTrace]) -> list[int]:
    """The written tokens of a row: all that were not discarded."""
    return [token.token_id for token in trace if token.reason != "discarded"]
