"""The tokens that a small model may draft, kept beside its weights: those that the outputs it learned use.

Knows token ids, a tokenizer and one JSON file; knows nothing of models or training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipelines.cli import UserError, counted
from pipelines.files import write_json
from pipelines.models.fingerprint import tokenizer_hash

NAME = "shortlist.json"
AGAIN = "run the training of the checkpoint again, which writes it, or set small.shortlist=false"


def collect(outputs: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerBase, min_count: int) -> list[int]:
    """The token ids that occur at least ``min_count`` times in the outputs, and all special ones; ascending."""
    counts = Counter(chain.from_iterable(outputs))
    frequent = (index for index, count in counts.items() if count >= min_count)
    return sorted({*frequent, *tokenizer.all_special_ids})


def write(folder: Path, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, min_count: int) -> None:
    """Put a list beside the weights in ``folder``, in place of the one that is there."""
    write_json({"tokenizer": tokenizer_hash(tokenizer), "min_count": min_count, "ids": list(ids)}, folder / NAME)


def leave(
    folder: Path, outputs: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerBase, min_count: int = 1
) -> None:
    """Put the tokens that the outputs of a training use beside its weights, and say so.

    They are no part of what the training seals: another ``min_count`` needs no other weights.
    """
    ids = collect(outputs, tokenizer, min_count)
    write(folder, ids, tokenizer, min_count)
    print(f"{folder / NAME}: {share(ids, tokenizer)}, for small.shortlist=true", flush=True)


def share(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """How many tokens there are in a list, in words."""
    return f"{counted(len(ids), 'token')} of {len(tokenizer):,}"


def read(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The list beside the weights in ``folder``.

    Raises:
        UserError: there is none, it cannot be read, or it is another tokenizer's.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_for, ids = content["tokenizer"], tuple(map(int, content["ids"]))
    except FileNotFoundError as error:
        raise UserError(
            f"small.shortlist=true: there is no {path}; pipelines.align writes it beside aligned weights, and "
            "pipelines.finetune beside those with exits (both also if they were finished before); or set it to false"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no list of token ids; {AGAIN}") from error
    if made_for != tokenizer_hash(tokenizer):
        raise UserError(f"{path}: was made with another tokenizer than the one that lies beside it; {AGAIN}")
    return ids
