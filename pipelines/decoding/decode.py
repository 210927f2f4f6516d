"""A whole split through the decoder: batched, sorted by length, with progress, resumable chunk by chunk.

Knows models, a tokenizer, texts and a policy; knows nothing about scores or time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

import bild
from bild.checks import as_ids, check_mode, check_models
from bild.many import RestartError
from bild.policies.base import Policy
from bild.sampling import Sampler
from bild.sources.base import DraftSource
from pipelines.cli import UserError
from pipelines.data.task import Task
from pipelines.decoding.prompts import check_room, count_shortened, first_line, line_ends, prompt_ids
from pipelines.decoding.rows import DecodedRow, kept_tokens
from pipelines.decoding.store import ChunkStore, Row

CHUNK = 64  # rows, rounded up to whole batches: what a killed run loses at most


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How texts are written, apart from models and policy. Equal for all methods that are compared."""

    max_new_tokens: int
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    """each row has its own random stream, made from this and the row's index"""
    engine: str = "auto"
    one_line: bool = False
    """a text ends with its first line: any token with a line break in it closes the row as EOS does"""


class BatchDecoder:
    """Two models, or one and what drafts for it, with what they share: rows of token ids in, ``DecodedRow``s out."""

    def __init__(
        self,
        large: PreTrainedModel | None,
        small: PreTrainedModel | DraftSource | None,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        shortlist: Sequence[int] | None = None,
    ) -> None:
        """``shortlist``: the only token ids that the small model may draft; None = all."""
        self.models = {"large": large, "small": small}
        """in this order"""
        self._tokenizer = tokenizer
        self._shortlist = shortlist
        self.decoding = decoding
        lead = next(model for model in (large, small) if isinstance(model, PreTrainedModel))
        self.device = lead.device
        self._pads_left = not lead.config.is_encoder_decoder
        self.eos = list(as_ids(lead.generation_config.eos_token_id))
        """ids that end a text"""
        if decoding.one_line:
            self.eos += line_ends(tokenizer)

    def check(self, policy: Policy) -> None:
        """Raise ``UserError`` unless these models can do what the policy asks of them in this mode; known before any
        work."""
        try:
            check_mode(policy, Sampler(do_sample=self.decoding.do_sample, temperature=self.decoding.temperature))
            check_models(*self.models.values(), policy)
        except ValueError as error:
            raise UserError(str(error)) from error

    def check_room(self, inputs: Sequence[list[int]]) -> None:
        """Raise ``UserError`` if prompts and what may follow them are more than a decoder-only model's positions."""
        check_room(self.models, inputs, self.decoding.max_new_tokens)

    def pad(self, inputs: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Rows of token ids as ``input_ids`` and ``attention_mask``, (B, S) int64 on the models' device.

        Prompts of decoder-only models are padded on the left: what is written goes on from their last token.
        """
        width = max(map(len, inputs))
        ids = torch.full((len(inputs), width), self._tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(inputs):
            place = slice(width - len(tokens), width) if self._pads_left else slice(len(tokens))
            ids[row, place] = torch.tensor(tokens)
            mask[row, place] = 1
        return ids.to(self.device), mask.to(self.device)

    def run(
        self, policy: Policy, ids: Tensor, mask: Tensor, rows: Sequence[int], streamer: Any = None
    ) -> bild.DecodeOutput:
        """Decode a batch; ``rows`` are the examples' indices in the split, from which the random streams are made.

        ``streamer`` as in ``bild.generate``, for a batch of one.

        Raises:
            UserError: what ``bild.generate`` finds wrong with models, policy or input.
        """
        generators = [self._generator(row) for row in rows] if self.decoding.do_sample else None
        try:
            return bild.generate(
                *self.models.values(),
                ids,
                attention_mask=mask,
                policy=policy,
                generator=generators,
                streamer=streamer,
                **self._keywords(policy),
            )
        except ValueError as error:
            raise UserError(str(error)) from error

    def decode(self, policy: Policy, inputs: Sequence[list[int]], rows: Sequence[int]) -> list[DecodedRow]:
        """Decode token ids of sources and read the result back as text."""
        return self._read(self.run(policy, *self.pad(inputs), rows))

    def decode_many(
        self, policy: Policy, inputs: Sequence[list[int]], rows: Sequence[int], batch_size: int
    ) -> Iterator[tuple[int, DecodedRow]]:
        """The same for any number of sources, ``batch_size`` at a time: each with its place, as soon as it is done.

        By ``bild.generate_many`` where that serves the models; elsewhere (prompts) a batch begins when the one before
        it has ended.
        """
        try:
            yield from self._refilled(policy, inputs, rows, batch_size)
            return
        except RestartError:  # before the first of them
            pass
        for start in range(0, len(inputs), batch_size):
            batch = slice(start, start + batch_size)
            yield from enumerate(self.decode(policy, inputs[batch], rows[batch]), start)

    def _refilled(
        self, policy: Policy, inputs: Sequence[list[int]], rows: Sequence[int], batch_size: int
    ) -> Iterator[tuple[int, DecodedRow]]:
        """``decode_many`` in one batch whose rows are given other sources."""
        outs = bild.generate_many(
            *self.models.values(),
            inputs,
            policy=policy,
            batch_size=batch_size,
            ordered=False,
            generator=lambda place: self._generator(rows[place]),
            **self._keywords(policy),
        )
        try:
            for place, out in outs:
                [row] = self._read(out)
                yield place, row
        except RestartError:
            raise
        except ValueError as error:
            raise UserError(str(error)) from error

    def _generator(self, row: int) -> torch.Generator:
        return row_generator(self.decoding.seed, row, self.device)

    def _keywords(self, policy: Policy) -> dict[str, Any]:
        """How texts are written, in ``bild.generate``'s terms."""
        options = self.decoding
        return {
            "max_new_tokens": options.max_new_tokens,
            "do_sample": options.do_sample,
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
            "generation_config": GenerationConfig(eos_token_id=self.eos) if options.one_line else None,
            "shortlist": self._shortlist if policy.uses_small else None,
            "engine": options.engine,
        }

    def _read(self, out: bild.DecodeOutput) -> list[DecodedRow]:
        """A batch as text."""
        written = [kept_tokens(trace) for trace in out.trace]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        if self.decoding.one_line:
            texts = [first_line(text) for text in texts]
        return [DecodedRow(*row) for row in zip(texts, written, out.stats, out.trace, strict=True)]


def decode_rows(
    decoder: BatchDecoder,
    policy: Policy,
    inputs: Sequence[list[int]],
    batch_size: int,
    store: ChunkStore[DecodedRow] | None,
    label: str | None,
    rows: Sequence[int] | None = None,
) -> list[DecodedRow]:
    """Decode rows of token ids with one policy, in batches of similar length.

    Args:
        inputs: of the whole split, N of them.
        store, label: as in ``in_chunks``; the store must belong to exactly these arguments (``pair.pair_key``).
        rows: which of the inputs to decode; None = all of them.

    Returns:
        One decoded row for each of ``rows``, in their order.
    """

    def answer(batch: Sequence[int]) -> list[DecodedRow]:
        return decoder.decode(policy, [inputs[row] for row in batch], batch)

    return in_chunks(range(len(inputs)) if rows is None else rows, inputs, answer, batch_size, store, label)


def in_chunks(
    rows: Sequence[int],
    inputs: Sequence[list[int]],
    answer: Callable[[Sequence[int]], list[Row]],
    batch_size: int,
    store: ChunkStore[Row] | None,
    label: str | None,
) -> list[Row]:
    """What ``answer`` makes of the inputs of these rows, in batches of similar length, kept as it is made.

    Args:
        rows: indices of distinct inputs.
        inputs: of the whole split.
        answer: a batch of indices to one result each.
        store: keeps finished chunks, so that a killed run goes on where it stopped; None = nothing is kept.
        label: of the progress bar; None = no bar.

    Returns:
        One result for each of ``rows``, in their order.
    """
    # Longest first: memory runs out at once or never, and the progress bar is pessimistic rather than optimistic.
    order = sorted(rows, key=lambda row: -len(inputs[row]))
    found: dict[int, Row] = {}
    hidden = label is None
    with tqdm(total=len(order), desc=label, unit="row", dynamic_ncols=True, leave=False, disable=hidden) as progress:
        for chunk_index, chunk in enumerate(_chunks(order, _chunk_size(batch_size))):
            results = None if store is None else store.read(chunk_index, chunk)
            if results is None:
                results = []
                for batch in _chunks(chunk, batch_size):
                    results += answer(batch)
                    progress.update(len(batch))
                if store is not None:
                    store.write(chunk_index, chunk, results)
            else:
                progress.update(len(chunk))
            found.update(zip(chunk, results, strict=True))
    return [found[row] for row in rows]


def source_ids(sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, task: Task) -> list[list[int]]:
    """Token ids of each source with the task's prefix, or of its prompt, at most ``task.source_length`` of them.

    A source loses its end but not its EOS; for prompts see ``prompts.prompt_ids``.
    """
    if task.prompt is not None:
        return prompt_ids(sources, tokenizer, task, task.prompt)
    return _encoded(sources, tokenizer, task, truncation=True)


def count_cut(
    sources: Sequence[str], inputs: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, task: Task
) -> int:
    """How many of the sources lost tokens when they became ``inputs``, their ``source_ids``."""
    if task.prompt is not None:
        return count_shortened(sources, tokenizer, task, task.prompt)
    full = [source for source, ids in zip(sources, inputs, strict=True) if len(ids) == task.source_length]
    return sum(len(ids) > task.source_length for ids in _encoded(full, tokenizer, task, truncation=False))


def row_generator(seed: int, row: int, device: torch.device) -> torch.Generator:
    """The random stream of one example: the same in any batch, order or resumed run."""
    digest = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") % 2**63)


def _encoded(
    sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, task: Task, truncation: bool
) -> list[list[int]]:
    texts = [task.prefix + source for source in sources]
    # Without truncation the tokenizer would warn of what the caller is asking about.
    length = task.source_length if truncation else None
    return tokenizer(texts, max_length=length, truncation=truncation, verbose=False)["input_ids"] if texts else []


def _chunk_size(batch_size: int) -> int:
    return batch_size * math.ceil(CHUNK / batch_size)


def _chunks(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])
