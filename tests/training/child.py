"""Trainings in processes of their own, which can be killed. One server imports everything once and forks them off."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.cli import UserError
from pipelines.models import manifest
from pipelines.training import final, report, trainer
from pipelines.training.run import TrainSummary
from tests.training import tiny

# Arrow's own allocator keeps a thread, whose locks a fork may find held for good; the system's is safe to fork.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.training.child"])


def start(
    out: Path, sabotage: str | None = None, run: Callable[..., TrainSummary] = tiny.run, **changes: Any
) -> multiprocessing.process.BaseProcess:
    """Start ``run(out, **changes)``; what it prints goes to ``{out}.log``."""
    process = SERVER.Process(target=_main, args=(out, sabotage, run, changes))
    process.start()
    return process


def finish(process: multiprocessing.process.BaseProcess) -> int:
    """Wait for the end; returns the exit status, minus the signal's number if one killed it."""
    process.join(120)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


def printed(out: Path) -> str:
    return out.with_suffix(".log").read_text(encoding="utf-8")


def wait_for(condition: Callable[[], bool], process: multiprocessing.process.BaseProcess) -> None:
    """Wait until a condition holds or the process has ended."""
    deadline = time.monotonic() + 120
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.001)


def _main(out: Path, sabotage: str | None, run: Callable[..., TrainSummary], changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log").open("a", encoding="utf-8", buffering=1)
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        if sabotage is not None:
            SABOTAGES[sabotage]()
        try:
            report.leave(run(out, **changes))
        except UserError as error:
            print(f"error: {error}")
            raise SystemExit(2) from None


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(calls: int, real: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """``real`` for the first calls, ``then`` afterwards."""
    count = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        return (real if count <= calls else then)(*arguments, **keywords)

    return counted


def _half_a_file(value: Any, path: str) -> None:
    """What a kill in the middle of torch.save leaves."""
    Path(path).write_bytes(b"PK\x03\x04")
    _die()


def _die_unsealed() -> None:
    manifest.write = _after(2, manifest.write, _die)


def _die_in_a_file() -> None:
    torch.save = _after(7, torch.save, _half_a_file)  # three files a checkpoint


def _die_before_the_rename() -> None:
    trainer.replace_folder = _after(2, trainer.replace_folder, _die)


def _die_in_the_final_write() -> None:
    final.os = _Instead(os, replace=_after(2, os.replace, _die))


def _small_disk() -> None:
    """No file may grow beyond 30 kB from the third checkpoint on; a full disk fails in the same places."""
    import resource

    def shrink(*arguments: Any, **keywords: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        return save(*arguments, **keywords)

    save = trainer.save_model
    trainer.save_model = _after(2, save, shrink)


def _slow_evaluation() -> None:
    """Every evaluation lasts until a signal comes."""

    def sleep(self: Any, alone: contextlib.AbstractContextManager[None]) -> dict[str, float]:
        with alone:
            print("evaluating", flush=True)
            time.sleep(60)
        return {}

    from pipelines.training.validation import Validation

    Validation.__call__ = sleep


class _Instead:
    """A module with some functions replaced, for one importer only."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


SABOTAGES = {
    "die unsealed": _die_unsealed,
    "die in a file": _die_in_a_file,
    "die before the rename": _die_before_the_rename,
    "die in the final write": _die_in_the_final_write,
    "small disk": _small_disk,
    "slow evaluation": _slow_evaluation,
}
