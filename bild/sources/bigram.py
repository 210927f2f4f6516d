"""A bigram table: after each token the one that followed it most often in a task's outputs. Knows tokens and JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from bild.sources.guess import Guesser, GuessSource

FORMAT = "bild.Bigram 1"


@dataclass(frozen=True, repr=False)
class Bigram(GuessSource):
    """The cheapest model of a task's language; Leviathan et al. (ICML 2023) draft with one beside their small models.

    Raises ValueError on a table that is empty or holds anything but token ids.
    """

    table: Mapping[int, int]
    """token id to the id that is drafted after it; after any other id nothing is drafted"""

    def __post_init__(self) -> None:
        if not self.table:
            raise ValueError("the bigram table is empty; build it from outputs: Bigram.from_outputs(rows)")
        for ids in self.table.items():
            if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in ids):
                raise ValueError(f"the bigram table holds {ids[0]!r}: {ids[1]!r}; give token ids, whole numbers >= 0")

    def __repr__(self) -> str:
        return f"Bigram({len(self.table)} tokens)"

    @classmethod
    def from_outputs(cls, rows: Iterable[Sequence[int] | Tensor], *, start: int | None = None) -> Bigram:
        """Count which token follows which; of equally frequent ones the lowest id stands.

        Args:
            rows: the token ids of one text each, EOS included, without padding.
            start: the id that stands before a text's first token (an encoder-decoder's ``decoder_start_token_id``),
                where the rows do not begin with it.

        Raises:
            ValueError: a row that is no sequence of token ids, or no row in which two tokens follow each other.
        """
        counts: Counter[tuple[int, int]] = Counter()
        for number, row in enumerate(rows):
            text = row.tolist() if isinstance(row, Tensor) else row
            if not isinstance(text, Sequence) or any(isinstance(one, Sequence) for one in text):
                raise ValueError(f"output {number} is no sequence of token ids; give one for each text")
            counts.update(pairwise(text if start is None else [start, *text]))
        # The most frequent come last, and among these the lowest id: later entries replace earlier ones.
        ranked = sorted(counts, key=lambda pair: (counts[pair], -pair[1]))
        return cls(dict(ranked))

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all."""
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        content = {"format": FORMAT, "tokens": list(self.table), "next": list(self.table.values())}
        try:
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Bigram:
        """Read what ``save`` wrote. Raises ValueError on anything else, and OSError where there is nothing."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            return cls(dict(zip(content["tokens"], content["next"], strict=True)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no bigram table ({error}); write one with Bigram.save") from error

    def check(self, large: PreTrainedModel) -> None:
        known = int(large.get_output_embeddings().weight.shape[0])
        wrong = max(max(self.table), max(self.table.values()))
        if wrong >= known:
            raise ValueError(
                f"the bigram table holds the id {wrong}, but those of the large model are 0 to {known - 1}; build it "
                "from this model's outputs"
            )

    def begin(self, source: Sequence[int]) -> Guesser:
        return _Chain(self.table)


class _Chain:
    """One row: its text, of which the last token decides."""

    def __init__(self, table: Mapping[int, int]) -> None:
        self._table = table
        self._text: list[int] = []

    def add(self, token: int) -> None:
        self._text.append(token)

    def drop(self, count: int) -> None:
        del self._text[len(self._text) - count :]

    def guess(self) -> int | None:
        return self._table.get(self._text[-1]) if self._text else None
