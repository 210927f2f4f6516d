"""Programs that talk to a local hub, in processes of their own: the libraries read where their hub is when imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conf import ROOT
from tests.hub.server import LocalHub


def environment(hub: LocalHub, home: Path) -> dict[str, str]:
    """Variables with which a process uses this hub alone and keeps what it downloads under ``home``."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
    }
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return kept | own | {"CUDA_VISIBLE_DEVICES": "", "NO_PROXY": "127.0.0.1"}


def ask(requests: list[Any], hub: LocalHub, home: Path, **changes: str) -> list[Any]:
    """What ``tests.hub.load`` answers, one by one; ``changes`` are further environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.load"],
        input=json.dumps(requests) + "\n",
        cwd=ROOT,
        env=environment(hub, home) | changes,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(requests)
    return answers
