"""What a person sees of a training: one bar, one line per log and per evaluation.

Knows the trainer's callbacks; changes nothing.
"""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback

UNSHOWN = ("total_flos", "epoch", "step", "grad_norm")


class Progress(ProgressCallback):
    """The trainer's own bar with readable lines."""

    def close(self) -> None:
        """End the bar's line, so that what is printed next starts a new one. Once more does no harm."""
        if self.training_bar is not None:
            self.training_bar.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or self.training_bar is None or logs is None or "train_runtime" in logs:
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in logs.items() if name not in UNSHOWN)
        self.training_bar.write(f"step {state.global_step}/{state.max_steps}  {shown}")
