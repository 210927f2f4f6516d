"""Prompts as token ids, how they stay short enough, and where what is written after them ends.

Knows a task's prompt and any tokenizer; knows nothing about policies or batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bild.checks import position_limit
from pipelines.cli import UserError
from pipelines.data.prompt import FewShot
from pipelines.data.task import Task

LINE_BREAK = "\n"
_RAW_BREAKS = (LINE_BREAK, "Ċ", "<0x0A>")  # as vocabularies write it: plainly, byte by byte as GPT-2, as a byte


def prompt_ids(
    sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, task: Task, prompt: FewShot
) -> list[list[int]]:
    """Token ids of each source's prompt, at most ``task.source_length`` of them.

    What is too long loses whole examples, the first ones first; a question too long by itself loses its beginning.
    """
    found: dict[int, list[int]] = {}
    pending = list(range(len(sources)))
    for left_out in range(len(task.examples) + 1):
        if not pending:
            break
        texts = [task.prefix + prompt.text(task.examples[left_out:], sources[row]) for row in pending]
        encoded = tokenizer(texts, verbose=False)["input_ids"]
        found |= {row: ids for row, ids in zip(pending, encoded, strict=True) if len(ids) <= task.source_length}
        pending = [row for row in pending if row not in found]
    if pending:
        texts = [prompt.text((), sources[row]) for row in pending]
        found |= zip(pending, _ends(texts, tokenizer, task.source_length), strict=True)
    return [found[row] for row in range(len(sources))]


def count_shortened(sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, task: Task, prompt: FewShot) -> int:
    """How many of the sources have a prompt that is shortened."""
    texts = [task.prefix + prompt.text(task.examples, source) for source in sources]
    encoded = tokenizer(texts, verbose=False)["input_ids"] if texts else []
    return sum(len(ids) > task.source_length for ids in encoded)


def line_ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens in whose text there is a line break; none where a vocabulary has no line breaks, as T5's."""
    vocabulary = tokenizer.get_vocab()
    candidates = [index for piece, index in vocabulary.items() if any(raw in piece for raw in _RAW_BREAKS)]
    return sorted(index for index in candidates if LINE_BREAK in tokenizer.decode([index]))


def first_line(text: str) -> str:
    """What stands before the first line break, without the blank that a model puts behind the prompt."""
    return text.partition(LINE_BREAK)[0].strip()


def check_fit(models: Mapping[str, PreTrainedModel], task: Task) -> None:
    """Raise ``UserError`` unless models (by role) and task go together: prompts for decoder-only models.

    An encoder-decoder may be asked with a prompt, too: its encoder reads it.
    """
    kinds = {role: bool(model.config.is_encoder_decoder) for role, model in models.items()}
    if len(set(kinds.values())) > 1:
        [causal] = [role for role, has_encoder in kinds.items() if not has_encoder]
        raise UserError(f"{causal}: is decoder-only and the other model is not; choose two of one kind")
    if task.prompt is None and not all(kinds.values()):
        raise UserError(
            f"task={task.name}: has no prompt, and decoder-only models write on from one; choose a few-shot task, such "
            "as gsm8k or wmt14_few_shot"
        )


def check_room(models: Mapping[str, object], inputs: Sequence[list[int]], max_new_tokens: int) -> None:
    """Raise ``UserError`` if the longest prompt and what may follow it exceed a decoder-only model's positions."""
    longest = max(map(len, inputs), default=0)
    for role, model in models.items():
        if not isinstance(model, PreTrainedModel) or model.config.is_encoder_decoder:
            continue
        positions = position_limit(model.get_decoder())
        if positions is not None and longest + max_new_tokens > positions:
            raise UserError(
                f"{role}: has {positions} positions, too few for a prompt of {longest} tokens and {max_new_tokens} "
                f"more; set task.source_length={positions - max_new_tokens} (then examples are left out), or lower "
                "max_new_tokens"
            )


def _ends(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> list[list[int]]:
    """The last ``length`` tokens of each text, special ones kept."""
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"
    try:
        ids: list[list[int]] = tokenizer(list(texts), max_length=length, truncation=True)["input_ids"]
        return ids
    finally:
        tokenizer.truncation_side = side
