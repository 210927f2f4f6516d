"""``accelerate launch`` with two processes, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conf import ROOT

# Without a GPU, --multi_gpu is how accelerate starts two plain processes (gloo); --cpu would ask for MPI.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m"]


@dataclass(frozen=True)
class Launched:
    """Both processes and what they print."""

    process: subprocess.Popen
    log: Path

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)


@contextmanager
def launched(folder: Path, *words: str) -> Iterator[Launched]:
    """``python -m {words}`` in two processes; what they print goes to a file in ``folder``."""
    log = folder / "printed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, *LAUNCH, *words], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield Launched(process, log)
        finally:
            process.terminate()
