"""Where a result comes from: git revision, versions, machine, the resolved configuration.

Knows the process it runs in; knows nothing about what was measured.
"""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import benchmarks.machine
from benchmarks.machine import git, versions
from pipelines.files import finite

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "sacrebleu", "rouge_score", "numpy")


def collect(config: DictConfig) -> dict[str, Any]:
    """Everything needed to make a result again, as JSON-like values. Called before the work, of whose code it tells.

    Paths are as the user gave them.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "git": git(),
        "versions": versions(PACKAGES),
        "machine": machine(),
        "config": resolved(config),
    }


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as JSON-like values."""
    return finite(OmegaConf.to_container(config, resolve=True))


def command() -> str:
    """The command line, as typed after the interpreter."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = Path(sys.argv[0]).name if main is None else f"-m {main.name}"
    return shlex.join(["python", *program.split(), *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """Processor, cores and threads that torch uses, accelerator."""
    return benchmarks.machine.machine(torch.cuda.get_device_name() if torch.cuda.is_available() else None)
