"""What ties the jobs of a Hydra sweep together: each leaves how it ended, the callback reads that at the end.

It goes through files in the sweep's folder, so that it does not matter which process a job ran in.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from pipelines.cli import UserError, complain, counted, explained, fail
from pipelines.files import write_json

OUTCOME = "outcome.json"


def is_sweep() -> bool:
    """This process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def say(line: str) -> None:
    """Print a line, but only once in a sweep: what several jobs have in common."""
    (_say_once if is_sweep() else print)(line)


@contextmanager
def job() -> Iterator[None]:
    """Around a whole job: in a sweep, what the user can mend is told in one line and costs this job alone."""
    try:
        yield
    except Exception as error:
        message = explained(error, HydraConfig.get().job.config_name) if is_sweep() else None
        if message is None:
            raise
        overrides = [override for override in HydraConfig.get().overrides.task if override not in sys.argv]
        complain(f"job {' '.join(overrides)}: {message}")
        _leave({"result": None})


def leave_result(result: Path, timing_log: Path) -> None:
    """Called by a job: where its result is, and which log of timings lets a killed sweep skip its measuring."""
    _leave({"result": str(result.absolute()), "timing_log": str(timing_log.absolute())})


class SweepReport(Callback):
    """Prints one table of all jobs and writes one report with the quality-latency plot."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read what the jobs have left. Ends the process with status 2 if some of them have failed."""
        try:
            conclude(Path(config.hydra.sweep.dir))
        except UserError as error:
            fail(str(error))
        except Exception:
            # Hydra would make a warning of it.
            traceback.print_exc()
            sys.exit(1)


def conclude(folder: Path) -> None:
    """Table and report of the jobs that worked. Raises ``UserError`` with the number of those that did not."""
    from pipelines.evaluation import report, results, table
    from pipelines.evaluation.results import shown_path
    from pipelines.evaluation.timings import TimingLog

    paths = sorted(folder.glob(f"*/{OUTCOME}"), key=lambda path: int(path.parent.name))
    outcomes = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    done = [outcome for outcome in outcomes if outcome["result"] is not None]
    if done:
        found = results.find([Path(outcome["result"]) for outcome in done])
        table.print_tables(found)
        print(shown_path(report.write_report(found, report.sweep_path(found))))
        for outcome in done:
            TimingLog(Path(outcome["timing_log"])).remove()
    if len(done) < len(outcomes):
        failed = f"{len(outcomes) - len(done)} of {counted(len(outcomes), 'job')}"
        raise UserError(f"{failed} of this sweep failed, as told above; mend and run those again")


@cache
def _say_once(line: str) -> None:
    print(line)


def _leave(outcome: dict[str, str | None]) -> None:
    write_json(outcome, Path(HydraConfig.get().runtime.output_dir) / OUTCOME)
