"""The tiny random pair of the evaluation's tests, and a quick analysis of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.conftest import dataset, models, overrides, pair, pair_folder, task, tokenizer

__all__ = ["dataset", "models", "overrides", "pair", "pair_folder", "quick", "task", "tokenizer"]


@pytest.fixture
def quick(overrides: list[str], tmp_path: Path) -> list[str]:
    """Command-line arguments for a small analysis of the random pair."""
    return [
        *overrides,
        "analysis.draft_length=3",
        "analysis.fallbacks=[0.1,0.5]",
        "analysis.fixed_lengths=[2]",
        "analysis.thresholds=[0,0.3,1.1]",
    ]
