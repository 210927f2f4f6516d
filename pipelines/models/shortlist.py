"""The tokens that a small model may draft, kept beside its weights: those that the large model's outputs use.

Knows token ids, a tokenizer and one JSON file; knows nothing of models or training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipelines.cli import UserError
from pipelines.files import write_json
from pipelines.models.fingerprint import tokenizer_hash

NAME = "shortlist.json"


def collect(outputs: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerBase, min_count: int) -> list[int]:
    """The token ids that occur at least ``min_count`` times in the outputs, and all special ones; ascending."""
    counts = Counter(chain.from_iterable(outputs))
    frequent = (index for index, count in counts.items() if count >= min_count)
    return sorted({*frequent, *tokenizer.all_special_ids})


def write(folder: Path, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, min_count: int) -> None:
    """Put a list beside the weights in ``folder``, in place of the one that is there."""
    write_json({"tokenizer": tokenizer_hash(tokenizer), "min_count": min_count, "ids": list(ids)}, folder / NAME)


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
            f"small.shortlist=true: there is no {path}; run pipelines.align, which writes it beside aligned weights "
            "(also beside those of an earlier run), or set it to false"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no list of token ids; run pipelines.align again, which writes it") from error
    if made_for != tokenizer_hash(tokenizer):
        raise UserError(f"{path}: is of another tokenizer; run pipelines.align again, or set small.shortlist=false")
    return ids
