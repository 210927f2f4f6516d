"""The runners of a pair, prefilled with some sources, as the round loop would use them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import bild
from bild.api import Call, begin, resolve
from bild.engine.runner import Runner
from pipelines.cli import UserError
from pipelines.decoding.decode import BatchDecoder


@torch.no_grad()
def open_runners(
    decoder: BatchDecoder, inputs: Sequence[list[int]], max_new_tokens: int
) -> tuple[Call, dict[str, Runner]]:
    """The call (prompt, sampler, logits processors) and the runners "small" and "large" of B sources, in the order in
    which they must be fed: as in a round, what drafts reads first. Runners that share what they cache rely on it.

    Raises:
        UserError: what the decoder finds wrong with models or input.
    """
    ids, mask = decoder.pad(inputs)
    options = decoder.decoding
    try:
        call = resolve(
            *decoder.models.values(),
            ids,
            attention_mask=mask,
            policy=bild.Speculative(),
            max_new_tokens=max_new_tokens,
            do_sample=options.do_sample,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            engine=options.engine,
        )
        _, runners = begin(call)
    except ValueError as error:
        raise UserError(str(error)) from error
    return call, {role: runners[role] for role in ("small", "large")}
