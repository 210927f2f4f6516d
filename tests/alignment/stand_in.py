"""A large model for tests of the shards: writes tokens that depend on the input and the seed alone.

Run as a program it fills a folder, for tests that need processes which can be killed or started in pairs:
``python -m tests.alignment.stand_in FOLDER [kill_at_output]``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.alignment.outputs import Processes, Sources, write_outputs
from pipelines.alignment.shards import Plan, ShardFolder

EOS = 1


def sources(rows: int) -> Sources:
    draw = random.Random(0)
    texts = [" ".join(str(draw.randrange(2, 100)) for _ in range(draw.randrange(1, 12))) for _ in range(rows)]
    return Sources(texts, lambda some: [[*map(int, text.split()), EOS] for text in some])


@dataclass
class Written:
    tokens: list[int]

    @property
    def text(self) -> str:
        return " ".join(map(str, self.tokens[:-1]))


def answer(row: list[int], number: int) -> list[int]:
    return [token + number % 7 for token in row[:-1]] + [EOS]


def decode(inputs: list[list[int]], numbers: list[int]) -> Iterator[tuple[int, Written]]:
    """As from a batch whose rows end at different times: in another order than asked for."""
    asked = list(enumerate(zip(inputs, numbers, strict=True)))
    for place, (row, number) in asked[1::2] + asked[::2]:
        yield place, Written(answer(row, number))


def fill(path: Path, decode=decode, processes=None, rows=23, samples=2):
    """Write the stand-in's outputs; returns the folder and the summary."""
    plan = Plan(rows=rows, shard_rows=5, samples=samples)
    folder = ShardFolder(path, plan, {"task.source": "abc"})
    summary = write_outputs(
        folder,
        sources(rows),
        decode,
        label="outputs",
        eos_token_ids=[EOS],
        processes=Processes() if processes is None else processes,
    )
    return folder, summary


def main() -> None:
    processes = Processes.joined(on_cpu=True)
    kill_at = int(sys.argv[2]) if len(sys.argv) > 2 else None
    outputs = 0

    def counted(inputs, numbers):
        nonlocal outputs
        for output in decode(inputs, numbers):
            if outputs == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            outputs += 1
            yield output
        time.sleep(0.05 * processes.rank)  # the processes do not end together

    fill(Path(sys.argv[1]), counted, processes)
    print(f"rank {processes.rank} decoded {outputs} outputs", flush=True)


if __name__ == "__main__":
    main()
