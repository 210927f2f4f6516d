"""Few-shot prompts: examples with their answers, then the question.

Knows texts; knows nothing about tokens or models.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset

from pipelines.cli import UserError, check_whole, counted

SOURCE, TARGET = "{source}", "{target}"


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """How a source becomes a prompt, instantiated by Hydra as ``prompt`` of a task.

    The answer is the rest of the line: decoding ends with it, and of a target with several lines an example shows the
    first.
    """

    shots: int  # examples before the question
    seed: int  # of their choice from the training split
    template: str  # of one example, with {source} and {target} in it; the prompt ends where {target} begins

    def __post_init__(self) -> None:
        check_whole("task.prompt.shots", self.shots, least=0)
        check_whole("task.prompt.seed", self.seed, least=0)
        template = self.template if isinstance(self.template, str) else ""
        if not template.count(SOURCE) == template.count(TARGET) == 1 or template.index(SOURCE) > template.index(TARGET):
            raise UserError(
                f"task.prompt.template={self.template!r}: must hold {SOURCE} once and {TARGET} once after it"
            )

    def choose(self, pairs: Dataset) -> tuple[str, ...]:
        """The examples, drawn from the pairs of a training split, as they stand in the prompt.

        Raises:
            UserError: fewer pairs than examples.
        """
        if len(pairs) < self.shots:
            raise UserError(
                f"task.prompt.shots={self.shots}: the train split has only {counted(len(pairs), 'row')}; lower it, or "
                "give more"
            )
        chosen = random.Random(self.seed).sample(range(len(pairs)), self.shots)
        return tuple(self._example(**pair) for pair in pairs.select(chosen))

    def text(self, examples: Sequence[str], source: str) -> str:
        """The whole prompt: a model writes the answer behind it. No blank at the end, as tokens begin with theirs."""
        question = self.template.partition(TARGET)[0]
        return "".join(examples) + question.replace(SOURCE, source).rstrip(" ")

    def answer(self, target: str) -> str:
        """What a model is to write behind ``text``: the blank that ``text`` does not end with, the answer, its end."""
        question, _, rest = self.template.partition(TARGET)
        return question[len(question.rstrip(" ")) :] + target.splitlines()[0] + rest

    def _example(self, source: str, target: str) -> str:
        question, _, rest = self.template.partition(TARGET)
        return question.replace(SOURCE, source) + target.splitlines()[0] + rest
