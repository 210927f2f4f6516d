"""What a training tells the person who started it, and its exit status.

Knows the summary; knows nothing about how it came about.
"""

from __future__ import annotations

import sys

from pipelines.cli import counted
from pipelines.training.processes import say
from pipelines.training.run import TrainSummary

ENDINGS = {
    "complete": "finished: all {max_steps} steps are done",
    "early": "finished: no new best for as many evaluations as train.patience allows",
    "before": "nothing to do: this run was finished before (a higher train.max_steps would go on with it)",
    "signal": "saved at step {steps} of {max_steps}; run the same command to go on",
}


def leave(summary: TrainSummary) -> None:
    """Print the summary. A run that a signal ended exits as shells expect it: 128 + the signal's number."""
    say("")
    say(ENDINGS[summary.ended].format(max_steps=summary.max_steps, steps=summary.steps))
    resumed = "" if summary.resumed_from is None else f", resumed from step {summary.resumed_from}"
    say(f"  steps        {summary.steps} ({_duration(summary.seconds)} in this run{resumed})")
    if summary.best is not None:
        say(f"  validation   {summary.metric} {summary.best:.2f}, best after {counted(summary.best_step, 'step')}")
    say(f"  {'checkpoints ' if summary.ended == 'signal' else 'model       '} {summary.out}")
    if summary.signal is not None:
        sys.exit(128 + summary.signal)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours > 0 else f"{minutes} min {rest} s" if minutes > 0 else f"{rest} s"
