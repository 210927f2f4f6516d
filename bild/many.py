"""Any number of inputs through a batch of fixed size: a row that has ended gives its place to the next input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild import checks
from bild.api import Call, begin, resolve
from bild.policies.base import Policy
from bild.sampling import RowStreams
from bild.types import DecodeOutput

Source = Sequence[int] | Tensor | Mapping[str, Tensor]


@torch.no_grad()
def generate_many(
    large: PreTrainedModel | None,
    small: PreTrainedModel | None,
    inputs: Iterable[Source],
    *,
    policy: Policy,
    batch_size: int = 16,
    ordered: bool = True,
    generator: torch.Generator | None = None,
    **keywords: Any,
) -> Iterator[tuple[int, DecodeOutput]]:
    """Decode any number of sources, ``batch_size`` at a time, and yield each with its number as soon as it is done.

    Each input is one source: its token ids without padding, as a list or an (S,) tensor, or a mapping of what the
    encoder takes to tensors of one row, such as ``{"input_ids": (1, S), "attention_mask": (1, S)}``. ``ordered``: a
    text waits for those before it. ``generator`` gives one seed per input, in their order. ``keywords`` are those of
    ``generate``, ``streamer`` excepted. A text is the one that ``generate`` writes in any batch.

    Raises ValueError on bad input, for what is known from the first ``batch_size`` inputs before any work.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be a whole number >= 1")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError("generate_many takes one generator, which seeds every input, not one per input")
    pending = enumerate(inputs)
    first = list(islice(pending, batch_size))
    if not first:
        return
    call = resolve(large, small, policy=policy, generator=generator, **_collated(first), **keywords)
    _check_restartable(call)
    decoder, runners = begin(call)
    held = {row: index for row, (index, _) in enumerate(first)}
    done: dict[int, DecodeOutput] = {}
    expected = 0
    while held:
        closed = decoder.round()
        for row in closed:
            done[held.pop(row)] = decoder.take(row)
        newcomers = list(islice(pending, len(closed)))
        if newcomers:
            rows = closed[: len(newcomers)]
            sources = _collated(newcomers)
            checks.check_inputs(sources, call.models, call.config.pad_token_id)
            for runner in runners.values():
                runner.restart(rows, **sources)
            seeded = RowStreams.of(generator, len(rows), call.prompt.device).generators
            for row, (index, _), stream in zip(rows, newcomers, seeded, strict=True):
                decoder.reopen(row, index, None if call.sampler.greedy else stream)
                held[row] = index
        while done and (not ordered or expected in done):
            index = expected if ordered else next(iter(done))
            expected += 1
            yield index, done.pop(index)


def _collated(numbered: Sequence[tuple[int, Source]]) -> dict[str, Any]:
    """Sources of one row each as one batch of tensors; token ids are padded on the right with 0 and masked."""
    others = [one for _, one in numbered if isinstance(one, Mapping) and "input_ids" not in one]
    if len(others) == len(numbered):
        return {name: torch.cat([source[name] for source in others]) for name in others[0]}
    rows = [_ids(source, index) for index, source in numbered]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long, device=rows[0].device)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _ids(source: Source, index: int) -> Tensor:
    """(S,) token ids of one source."""
    if not isinstance(source, Mapping):
        ids = torch.as_tensor(source)
    else:
        ids = source["input_ids"]
        mask = source.get("attention_mask")
        ids = ids[0] if mask is None else ids[0][mask[0].bool()]
    if ids.dim() != 1 or len(ids) == 0:
        raise ValueError(
            f"input {index} must be the token ids of one source, at least one of them: got {tuple(ids.shape)}"
        )
    return ids


def _check_restartable(call: Call) -> None:
    """Rows can be given other sources: what stands before a row's first token is the same for all of them."""
    if not next(iter(call.models.values())).config.is_encoder_decoder:
        raise ValueError("generate_many is for encoder-decoder models; prompts differ in length: use generate")
    if getattr(call.config, "is_multilingual", False) and getattr(call.config, "language", None) is None:
        raise ValueError(
            "generate_many would hold every input for the first ones' language: set generation_config.language"
        )
    if bool((call.prompt != call.prompt[0]).any()):
        raise ValueError("generate_many needs one decoder prompt for all inputs; use generate")
    for field, neutral in (("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0)):
        if getattr(call.config, field, None) not in (None, neutral):
            raise ValueError(f"{field} looks at a batch's first sources only; use generate")
