"""Where a result comes from: git revision, versions, machine, the resolved configuration.

Knows the process it runs in; knows nothing about what was measured.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pipelines.files import ROOT, finite

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "sacrebleu", "rouge_score", "numpy")


def collect(config: DictConfig) -> dict[str, Any]:
    """Everything needed to make a result again, as JSON-like values. Paths are as the user gave them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "git": git(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": machine(),
        "config": finite(OmegaConf.to_container(config, resolve=True)),
    }


def command() -> str:
    """The command line, as typed after the interpreter."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = Path(sys.argv[0]).name if main is None else f"-m {main.name}"
    return shlex.join(["python", *program.split(), *sys.argv[1:]])


def git() -> dict[str, Any]:
    """The revision of the clone, and whether tracked files differ from it; nulls outside a clone."""
    revision = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "changed": None if changes is None else changes != ""}


def machine() -> dict[str, Any]:
    """Processor, cores and threads that torch uses, accelerator."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name; Linux tells it only in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
