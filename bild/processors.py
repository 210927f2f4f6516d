"""Logits processors: which ones a generation config asks for, and how they meet a draft.

The classes are transformers' own. Sampling fields of the config are not read here: they come from arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as lp

from bild.tensors import sent

Build = Callable[..., Any]
PER_ROW = (
    lp.EncoderRepetitionPenaltyLogitsProcessor,
    lp.EncoderNoRepeatNGramLogitsProcessor,
    lp.PrefixConstrainedLogitsProcessor,
)
"""Those that hold something for each row of a batch, by its place: its source, or what the user knows of it."""


def from_config(
    config: GenerationConfig,
    *,
    prompt_length: int,
    max_length: int,
    eos: list[int],
    encoder_input_ids: Tensor | None,
    device: torch.device,
) -> LogitsProcessorList:
    """The processors that ``config`` asks for, in transformers' order.

    ``prompt_length`` and ``max_length`` count decoder tokens, start included; ``encoder_input_ids`` is (B, S) or None;
    ``device`` is where the logits will be.
    """
    built = LogitsProcessorList()

    def add(value: Any, neutral: Any, build: Build) -> None:
        if value is not None and value != neutral:
            built.append(build(value))

    add(config.sequence_bias, None, lambda v: lp.SequenceBiasLogitsProcessor(sequence_bias=v))
    if encoder_input_ids is not None:
        add(
            config.encoder_repetition_penalty,
            1.0,
            lambda v: lp.EncoderRepetitionPenaltyLogitsProcessor(penalty=v, encoder_input_ids=encoder_input_ids),
        )
    add(config.repetition_penalty, 1.0, lambda v: lp.RepetitionPenaltyLogitsProcessor(penalty=v))
    add(config.no_repeat_ngram_size, 0, lp.NoRepeatNGramLogitsProcessor)
    if encoder_input_ids is not None:
        add(
            config.encoder_no_repeat_ngram_size,
            0,
            lambda v: lp.EncoderNoRepeatNGramLogitsProcessor(v, encoder_input_ids),
        )
    add(config.bad_words_ids, None, lambda v: lp.NoBadWordsLogitsProcessor(v, eos))
    if eos:
        # The other one replaces it, as in transformers.
        min_length = config.min_length if config.min_new_tokens is None else None
        add(min_length, 0, lambda v: lp.MinLengthLogitsProcessor(v, eos, device=device))
        add(
            config.min_new_tokens,
            0,
            lambda v: lp.MinNewTokensLengthLogitsProcessor(prompt_length, v, eos, device=device),
        )
    add(config.forced_bos_token_id, None, lp.ForcedBOSTokenLogitsProcessor)
    add(config.forced_eos_token_id, None, lambda v: lp.ForcedEOSTokenLogitsProcessor(max_length, v, device=device))
    if eos:
        add(
            config.exponential_decay_length_penalty,
            None,
            lambda v: lp.ExponentialDecayLengthPenalty(v, eos, prompt_length),
        )
    add(config.suppress_tokens, None, lambda v: lp.SuppressTokensLogitsProcessor(v, device=device))
    # A forced first token is not the beginning that is suppressed.
    begin = prompt_length + (prompt_length == 1 and config.forced_bos_token_id is not None)
    add(
        config.begin_suppress_tokens,
        None,
        lambda v: lp.SuppressTokensAtBeginLogitsProcessor(v, begin, device=device),
    )
    return built


def merge(built: LogitsProcessorList, given: Sequence[Any]) -> LogitsProcessorList:
    """The config's processors and the user's. Of the same type the user's stands in its place, as in transformers."""
    by_type = {type(processor): processor for processor in given}
    merged = [by_type.get(type(processor), processor) for processor in built]
    return LogitsProcessorList(merged + [processor for processor in given if processor not in merged])


def process(
    processors: LogitsProcessorList, raw: Tensor, tokens: Tensor, first: Sequence[int], positions: Sequence[int]
) -> Tensor:
    """Apply the processors per row and position, each with exactly the tokens that stand before it.

    ``raw`` (B, W, V) logits, ``tokens`` (B, T), ``first`` B numbers of tokens before column 0, ``positions`` B numbers
    of columns that count. Returns (B, W, V).
    """
    if len(processors) == 0:
        return raw
    processed = raw.clone()
    counted = [(row, start, start + count) for row, (start, count) in enumerate(zip(first, positions, strict=True))]
    counted = [one for one in counted if one[1] < one[2]]
    for length in range(min(start for _, start, _ in counted), max(end for _, _, end in counted)):
        here = {row: length - start for row, start, end in counted if start <= length < end}
        if not here:
            continue
        # A processor may hold something for each row (the source's n-grams), so every call shows it B rows in their
        # places; a row without a column of this length stands in as a copy of one that has.
        stand_in = next(iter(here))
        shown = [row if row in here else stand_in for row in range(len(raw))]
        index = sent([shown, [here[row] for row in shown]], raw.device)
        scores = processors(tokens[index[0], :length], raw[index[0], index[1]])
        mine = sent([list(here), list(here.values())], raw.device)
        processed[mine[0], mine[1]] = scores[mine[0]]
    return processed


def split_off_warpers(processors: LogitsProcessorList) -> LogitsProcessorList:
    """The list that transformers prepared, without temperature, top-k and top-p, which the sampler applies itself.

    Raises ValueError on the sampling methods that this decoder does not have.
    """
    own = (lp.TemperatureLogitsWarper, lp.TopKLogitsWarper, lp.TopPLogitsWarper)
    foreign = (
        lp.EpsilonLogitsWarper,
        lp.EtaLogitsWarper,
        lp.MinPLogitsWarper,
        lp.TopHLogitsWarper,
        lp.TypicalLogitsWarper,
        lp.UnbatchedClassifierFreeGuidanceLogitsProcessor,
    )
    for processor in processors:
        if isinstance(processor, foreign):
            raise ValueError(f"{type(processor).__name__} is not supported; use temperature, top_k and top_p")
    return LogitsProcessorList([processor for processor in processors if not isinstance(processor, own)])
