"""Lets the large model answer every input, shard by shard, alone or shared between processes.

Knows a function that turns token ids into token ids, and the folder of shards. Knows nothing of models or training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm import tqdm

from pipelines.alignment.shards import Plan, ShardFolder
from pipelines.cli import UserError, counted


class Written(Protocol):
    """One output: its text and its token ids, EOS included where it was written."""

    text: str
    tokens: list[int]


# (input token ids, one number per output) -> each output with its place among the inputs, in whatever order they end.
# The number is the same whatever run, batch or process writes the output; a decoder that samples makes the output's
# random stream from it.
Decode = Callable[[list[list[int]], list[int]], Iterable[tuple[int, Written]]]


@dataclass(frozen=True)
class Sources:
    """What is answered, and how it becomes token ids; done shard by shard, since there may be millions of texts."""

    texts: Sequence[str]
    encode: Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Processes:
    """This process among those that share the shards. ``barrier`` returns when every process has called it."""

    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None

    @classmethod
    def joined(cls, on_cpu: bool) -> Processes:
        """The processes that ``accelerate launch`` (or torchrun) has started, or this one alone."""
        from accelerate import PartialState

        state = PartialState(cpu=on_cpu)
        return cls(state.process_index, state.num_processes, state.wait_for_everyone)

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all, and does what is done once."""
        return self.rank == 0


def write_outputs(
    folder: ShardFolder,
    sources: Sources,
    decode: Decode,
    *,
    label: str,
    eos_token_ids: Sequence[int],
    processes: Processes,
) -> dict[str, int]:
    """Generate the shards that are missing, wait for those of the other processes, write the manifest.

    Process r answers shards r, r + world, ... Returns the summary: outputs, tokens, empty, cut (counts). Stopped at
    any point and called again, at most the shard in flight is generated again, with the same rows.
    """
    mine = range(processes.rank, folder.plan.shards, processes.world)
    done = set(folder.finished(mine))
    processes.barrier()  # from here on, a file that is there is whole
    todo = [shard for shard in mine if shard not in done]
    if processes.first:
        print(f"{label}: {_progress_line(len(done), len(todo), processes.world)}", flush=True)
    hidden = not (processes.first and todo)
    bar = tqdm(total=sum(map(folder.plan.outputs, todo)), desc=label, unit="row", disable=hidden)
    try:
        with bar:
            for shard in todo:
                rows = _answer(folder.plan, shard, sources, decode, bar.update)
                folder.write(shard, rows)
    except KeyboardInterrupt:
        if processes.first:
            print(f"stopped; finished shards stay in {folder.path}, and the same command continues there", flush=True)
        raise
    _wait(folder, processes.first)
    processes.barrier()
    summary = summarize(folder, eos_token_ids)
    if processes.first:
        folder.finish(summary)
    processes.barrier()
    return summary


def summarize(folder: ShardFolder, eos_token_ids: Sequence[int]) -> dict[str, int]:
    """Counts over all outputs: outputs, tokens, empty (no text), cut (ended by the length limit, without an EOS).

    Empty outputs are kept: the small model is to imitate the large one there too. Raises UserError if all are empty.
    """
    ends = frozenset(eos_token_ids)
    counts = {"outputs": 0, "tokens": 0, "empty": 0, "cut": 0}
    for shard in range(folder.plan.shards):
        for target, tokens in zip(*folder.columns(shard, ["target", "tokens"]), strict=True):
            counts["outputs"] += 1
            counts["tokens"] += len(tokens)
            counts["empty"] += not target.strip()
            counts["cut"] += not tokens or tokens[-1] not in ends
    if counts["empty"] == counts["outputs"]:
        raise UserError(
            f"every output in {folder.path} is empty, so there is nothing to learn from the large "
            "model; fine-tune it first, then remove that folder"
        )
    return counts


def _answer(
    plan: Plan, shard: int, sources: Sources, decode: Decode, advance: Callable[[], object]
) -> list[dict[str, Any]]:
    """The rows of one shard, decoded longest source first, returned in the order of the source."""
    inputs, samples = plan.inputs(shard), plan.samples
    texts = sources.texts[inputs.start : inputs.stop]
    encoded = sources.encode(texts)
    jobs = [(place, sample) for place in range(len(inputs)) for sample in range(samples)]
    longest_first = sorted(jobs, key=lambda job: -len(encoded[job[0]]))
    numbers = [inputs[place] * samples + sample for place, sample in longest_first]
    written: dict[tuple[int, int], Written] = {}
    for place, output in decode([encoded[place] for place, _ in longest_first], numbers):
        written[longest_first[place]] = output
        advance()
    return [
        {
            "index": inputs[place],
            "sample": sample,
            "source": texts[place],
            "target": written[place, sample].text,
            "tokens": written[place, sample].tokens,
        }
        for place, sample in jobs
    ]


def _progress_line(done: int, todo: int, world: int) -> str:
    shared = f" (process 1 of {world}; the others take about as many)" if world > 1 else ""
    if not todo:
        return f"nothing to generate, {counted(done, 'shard')} from before{shared}"
    before = f", {done:,} from before" if done else ""
    return f"{counted(todo, 'shard')} to generate{before}{shared}"


def _wait(folder: ShardFolder, report: bool) -> None:
    """Return when every shard has a file. Files, not a barrier: a collective call would time out on long work."""
    missing = folder.missing()
    if missing and report:
        print(f"waiting for the other processes, {counted(len(missing), 'shard')} to go", flush=True)
    while folder.missing():
        time.sleep(0.5)
