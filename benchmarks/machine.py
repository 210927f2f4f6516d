"""What a result was measured on: processor, memory bandwidth, versions, git revision, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.clock import now

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "numpy", "ctranslate2", "sacrebleu", "scikit-learn")


def provenance(config: dict[str, Any], bandwidth: float, module: str = "benchmarks.latency") -> dict[str, Any]:
    """Everything needed to make a result again. ``config``: the options of the run; ``bandwidth``: bytes a second."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "git": git(),
        "versions": versions(PACKAGES),
        "machine": {
            **machine(None if config["device"] == "cpu" else torch.cuda.get_device_name(config["device"])),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "bandwidth_gb_per_s": bandwidth / 1e9,
        },
        "config": config,
    }


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Of Python and of these packages."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in packages}}


def machine(accelerator: str | None) -> dict[str, Any]:
    """Processor, cores and threads that torch uses, and the accelerator, as it is called."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
    }


def git() -> dict[str, Any]:
    """The revision of the clone, and whether tracked files differ from it; nulls outside a clone."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"revision": _git("rev-parse", "HEAD"), "changed": None if changes is None else changes != ""}


def package_version(package: str) -> str | None:
    """Of an installed package; None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_bandwidth(device: torch.device, size: int, repeats: int = 5) -> float:
    """Bytes a second at which ``device`` reads a tensor of ``size`` bytes: the best of a few ways and repeats.

    No single operator reads at full speed everywhere: a float sum can be bound by its additions.
    """
    data = torch.ones(size // 4, dtype=torch.float32, device=device)
    row = torch.ones(1, 1024, device=device)
    as_int, as_matrix = data.view(torch.int64), data[: len(data) // 1024 * 1024].view(-1, 1024)
    ways: list[Callable[[], torch.Tensor]] = [data.sum, as_int.sum, data.amax, lambda: F.linear(row, as_matrix)]
    best = float("inf")
    for way in ways:
        way()
        for _ in range(repeats):
            start = now(device)
            way()
            best = min(best, now(device) - start)
    return data.nbytes / best


def say(message: str) -> None:
    """Progress goes to standard error, tables to standard output."""
    print(f"{time.strftime('%H:%M:%S')}  {message}", file=sys.stderr, flush=True)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    """The processor's name; Linux tells it only in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
