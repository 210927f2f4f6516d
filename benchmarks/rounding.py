"""What rounding changes: the large model's texts under lossless settings, and either model's choices in 8 bits.

python -m benchmarks.rounding --large FOLDER --small FOLDER --data FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedModel

import bild
from benchmarks import options as command_line
from benchmarks.latency import measured
from benchmarks.machine import say
from benchmarks.methods import Batch, pad
from benchmarks.own import BildMethod
from benchmarks.pair import Pair, load
from benchmarks.table import markdown
from benchmarks.texts import bleu, margin
from bild.engine import make_runner

REFERENCE = "static"
ALONE = {"large": bild.LargeOnly(), "small": bild.SmallOnly()}
EXACT = bild.BigLittle(rollback=0, verify_eos=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Bad input is one line and status 2."""
    parser = command_line.rounding_parser()
    parser.set_defaults(run=run_rounding)
    content, _ = measured(parser, arguments, "benchmarks.rounding")
    print(markdown(content))


def run_rounding(options: argparse.Namespace, bandwidth: float) -> dict[str, Any]:
    """Every engine, one after the other; nothing is timed."""
    pair = load(options)
    return {**pair.description, "engines": measure(pair, options.engines, options.batch_sizes, options)}


def measure(pair: Pair, engines: Sequence[str], batch_sizes: Sequence[int], options: Any) -> list[dict[str, Any]]:
    """One entry per engine. Texts are compared between the first of ``batch_sizes`` and each of the others."""
    first, *others = batch_sizes
    limit = options.max_new_tokens
    said = {role: _written(pair, policy, REFERENCE, first, limit) for role, policy in ALONE.items()}
    entries = []
    for engine in engines:
        say(engine)
        alone = {role: _written(pair, policy, engine, first, limit) for role, policy in ALONE.items()}
        entries.append(
            {
                "engine": engine,
                "bleu": {role: bleu(rows, pair.texts, pair.tokenizer) for role, rows in alone.items()},
                "same_choice": {role: _agreement(pair, role, engine, first, rows) for role, rows in said.items()},
                "lossless": [
                    _unlike(pair, size, alone["large"], _written(pair, EXACT, engine, size, limit)) for size in others
                ],
            }
        )
    return entries


def _written(pair: Pair, policy: Any, engine: str, batch_size: int, limit: int) -> list[list[int]]:
    """Token ids of every row's text."""
    method = BildMethod("", policy, engine, pair.large, pair.small)
    return [row for batch in pair.batches(batch_size) for row in method.decode(batch, limit).tokens]


def _agreement(pair: Pair, role: str, engine: str, batch_size: int, said: Sequence[list[int]]) -> dict[str, int]:
    """At how many of the positions of what the model says in float32 it would choose the same token on ``engine``."""
    model = getattr(pair, role)
    same = 0
    for place, batch in enumerate(pair.batches(batch_size)):
        rows = said[place * batch_size : (place + 1) * batch_size]
        pairs = zip(chain.from_iterable(choices(model, engine, batch, rows)), chain.from_iterable(rows), strict=True)
        same += sum(one == other for one, other in pairs)
    return {"positions": sum(map(len, said)), "same": same}


@torch.inference_mode()
def choices(model: PreTrainedModel, engine: str, batch: Batch, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The model's most probable token at every position of these rows, given what stands before it in the row.

    Args:
        batch: the sources, one for each of ``rows``, whose lengths the result has.
    """
    ids, mask = batch
    runner = make_runner(model, engine, max(map(len, rows)))
    runner.prefill(input_ids=ids, attention_mask=mask)
    before = [[model.generation_config.decoder_start_token_id, *row[:-1]] for row in rows]
    tokens, _ = pad(before, model.config.pad_token_id, torch.device("cpu"))
    best = runner.extend(tokens, [len(row) for row in rows]).argmax(-1).tolist()
    return [chosen[: len(row)] for chosen, row in zip(best, rows, strict=True)]


def _unlike(pair: Pair, size: int, alone: Sequence[list[int]], exact: Sequence[list[int]]) -> dict[str, Any]:
    """The texts that are not the large model's, with how sure transformers' forward is where they part."""
    single = pair.batches(1)
    unlike = [row for row, (one, other) in enumerate(zip(alone, exact, strict=True)) if one != other]
    margins = [margin(pair.large, single[row], alone[row], exact[row]) for row in unlike]
    return {"batch_size": size, "differ": len(unlike), "margins": margins}


if __name__ == "__main__":
    main()
