"""Lines of text through a policy: what ``pipelines.generate`` needs of models, task and decoder.

Knows a config and strings; knows nothing about where lines come from or go.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from bild.policies.base import Policy
from pipelines.cli import counted
from pipelines.data.task import Task
from pipelines.decoding.calibrated import chosen
from pipelines.decoding.config import decoding, instantiated
from pipelines.decoding.decode import BatchDecoder, count_cut, decode_rows, source_ids
from pipelines.decoding.pair import Pair, load_pair, pair_key
from pipelines.decoding.store import ChunkStore


class LineDecoder:
    """Turns lines into lines. An empty line stays empty and is shown to no model."""

    def __init__(self, pair: Pair, task: Task, policy: Policy, decoder: BatchDecoder) -> None:
        self._pair = pair
        self._task = task
        self._policy = policy
        self._decoder = decoder
        self._seen = 0

    @classmethod
    def load(cls, config: DictConfig) -> LineDecoder:
        """The models, task and policy of a config; says which models on standard error."""
        task, policy = instantiated(config, "task"), instantiated(config, "bild")
        written = decoding(config, task, policy)
        used = {"large": policy.uses_large, "small": policy.uses_small}
        pair = load_pair(config, task, [role for role in used if used[role]])
        for role, model in pair.described.items():
            print(f"{role}  {model.note}", file=sys.stderr)
        choice = chosen(config, pair, task, policy, written)
        print("; ".join([f"policy {choice.policy}", *choice.notes]), file=sys.stderr)
        return cls(pair, task, choice.policy, pair.decoder(written))

    def decode(self, lines: Sequence[str]) -> list[str]:
        """Decode one batch of lines; random streams go on from the batch before."""
        texts = [line for line in lines if line.strip()]
        rows = range(self._seen, self._seen + len(texts))
        self._seen += len(texts)
        decoded = self._decoder.decode(self._policy, self._inputs(texts), rows) if texts else []
        return _between(lines, [row.text for row in decoded])

    def decode_all(self, lines: Sequence[str], batch_size: int, partial: Path) -> list[str]:
        """Decode all lines in batches of similar length; ``partial`` is a folder that keeps finished chunks."""
        inputs = self._inputs([line for line in lines if line.strip()])
        key = pair_key(self._pair, self._policy, inputs, self._decoder.decoding, batch_size)
        store = ChunkStore(partial / key)
        decoded = decode_rows(self._decoder, self._policy, inputs, batch_size, store, "decoding")
        return _between(lines, [row.text for row in decoded])

    def _inputs(self, texts: Sequence[str]) -> list[list[int]]:
        inputs = source_ids(texts, self._pair.tokenizer, self._task)
        self._decoder.check_room(inputs)
        if cut := count_cut(texts, inputs, self._pair.tokenizer, self._task):
            limit = self._task.source_length
            how = "cut there" if self._task.prompt is None else "examples left out of their prompts"
            print(f"{counted(cut, 'line')} longer than {limit} tokens, {how} (task.source_length)", file=sys.stderr)
        return inputs


def _between(lines: Sequence[str], decoded: Sequence[str]) -> list[str]:
    """Outputs in the places of the lines that are not empty, one line each."""
    outputs = iter(decoded)
    return [" ".join(next(outputs).splitlines()) if line.strip() else "" for line in lines]
