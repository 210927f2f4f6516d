"""One timing, and the log of those of a run in progress: what lets a killed run go on where it stopped.

Knows a folder and JSON lines; knows nothing about how time is measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pipelines.files import sole_writer, write_text

PROCESS = uuid4().hex  # tells this process from all others, on whatever machine and whenever they ran


@dataclass(frozen=True)
class Timing:
    """One example decoded alone by one method."""

    row: int
    """index of the example in the split"""
    method: str
    milliseconds: float
    """end to end: encoders and decoding, token ids on the device to token ids on the device"""
    encoder_milliseconds: float
    """the part before the first decoder step: the encoders of the models that the method uses, and preparing caches"""
    tokens: list[int]
    """what was written, EOS included"""
    process: str = PROCESS
    """which process measured it"""


class TimingLog:
    """A folder with the timings of one run, a row of all methods at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = folder / "timings.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Write it in this block alone. Raises ``UserError`` if the same run is going on in another process."""
        with sole_writer(self.folder):
            yield

    def read(self) -> list[Timing]:
        """The timings so far. A line that was cut off is dropped for good, with what follows it."""
        if not self._lines.exists():
            return []
        timings: list[Timing] = []
        whole_lines: list[str] = []
        for line in self._lines.read_text(encoding="utf-8").splitlines():
            try:
                entries = [Timing(**entry) for entry in json.loads(line)]
            except (json.JSONDecodeError, TypeError):
                break
            timings += entries
            whole_lines.append(line + "\n")
        # What follows must start on a line of its own.
        write_text("".join(whole_lines), self._lines)
        return timings

    def append(self, timings: Sequence[Timing]) -> None:
        """Add what all methods took for one row."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps([asdict(timing) for timing in timings]) + "\n")

    def remove(self) -> None:
        """Once the result is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)
