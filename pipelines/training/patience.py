"""Early stopping as a function of the history, so that a resumed run stops where an uninterrupted one does.

transformers' EarlyStoppingCallback counts in memory; its count is restored only together with the flag that told the
saved run to stop, and then the resumed one stops at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback


def out_of_patience(history: Sequence[Mapping[str, Any]], metric: str, patience: int | None) -> bool:
    """Whether the last ``patience`` evaluations brought no new best of ``metric`` (higher is better)."""
    values = [entry[metric] for entry in history if metric in entry]
    return patience is not None and bool(values) and len(values) - 1 - values.index(max(values)) >= patience


class Patience(TrainerCallback):
    """Stops and saves when patience has run out."""

    def __init__(self, metric: str, patience: int | None) -> None:
        self._metric = metric
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if out_of_patience(state.log_history, self._metric, self._patience):
            control.should_training_stop = True
            control.should_save = True
