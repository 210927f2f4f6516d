"""A large model for tests of the shards: writes tokens that depend on the input and the seed alone.

Run as a program it fills a folder, for tests that need processes which can be killed or started in pairs:
``python -m tests.alignment.stand_in FOLDER [kill_at_call]``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from pipelines.alignment.outputs import Processes, Sources, write_outputs
from pipelines.alignment.shards import Plan, ShardFolder

EOS = 1


def sources(rows: int) -> Sources:
    draw = random.Random(0)
    ids = [[draw.randrange(2, 100) for _ in range(draw.randrange(1, 12))] + [EOS] for _ in range(rows)]
    return Sources(texts=[" ".join(map(str, row)) for row in ids], input_ids=ids)


def decode(inputs: list[list[int]], seeds: list[int]) -> list[list[int]]:
    return [[token + seed % 7 for token in row[:-1]] + [EOS] for row, seed in zip(inputs, seeds, strict=True)]


def detokenize(rows: list[list[int]]) -> list[str]:
    return [" ".join(map(str, row[:-1])) for row in rows]


def fill(path: Path, decode=decode, processes=None, rows=23, batch_size=4, samples=2, seed=5, **identity):
    """Write the stand-in's outputs; returns the folder and the summary."""
    plan = Plan(rows=rows, shard_rows=5, samples=samples)
    folder = ShardFolder(path, plan, {"task.source": "abc", "seed": seed, **identity})
    summary = write_outputs(
        folder,
        sources(rows),
        decode,
        detokenize,
        batch_size=batch_size,
        seed=seed,
        eos_token_ids=[EOS],
        processes=Processes() if processes is None else processes,
    )
    return folder, summary


def main() -> None:
    from accelerate import PartialState

    state = PartialState(cpu=True)
    processes = Processes(state.process_index, state.num_processes, state.wait_for_everyone)
    kill_at = int(sys.argv[2]) if len(sys.argv) > 2 else None
    calls = 0

    def counted(inputs, seeds):
        nonlocal calls
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        time.sleep(0.05 * processes.rank)  # the processes do not end together
        return decode(inputs, seeds)

    fill(Path(sys.argv[1]), counted, processes)
    print(f"rank {processes.rank} decoded {calls} batches", flush=True)


if __name__ == "__main__":
    main()
