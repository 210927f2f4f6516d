"""What ties the jobs of a Hydra sweep together: each leaves the path of its result, the callback reads them at the end.

Paths go through files in the sweep's folder, so that it does not matter which process a job ran in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

POINTER = "result.txt"


def is_sweep() -> bool:
    """This process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_number() -> int:
    """The place of this job in its sweep, from 0; 0 for a single run."""
    return HydraConfig.get().job.num if is_sweep() else 0


def leave_result(result: Path, timing_log: Path) -> None:
    """Called by a job: where its result is, and which log of timings lets a killed sweep skip its measuring."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POINTER).write_text(f"{result.absolute()}\n{timing_log.absolute()}\n", encoding="utf-8")


class SweepReport(Callback):
    """Prints one table of all jobs and writes one report with the quality-latency plot."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read what the jobs have left. A sweep without results has failed and says so itself."""
        from pipelines.evaluation import report, results, table
        from pipelines.evaluation.results import shown_path

        pointers = sorted(Path(config.hydra.sweep.dir).glob(f"*/{POINTER}"), key=lambda path: int(path.parent.name))
        lines = [pointer.read_text(encoding="utf-8").split("\n") for pointer in pointers]
        # Two jobs that resolve to the same configuration have written the same result.
        paths = list(dict.fromkeys(Path(line[0]) for line in lines))
        if not paths:
            return
        found = results.find(paths)
        table.print_tables(found)
        print(shown_path(report.write_report(found, report.report_path(found))))
        for line in lines:
            Path(line[1]).unlink(missing_ok=True)
