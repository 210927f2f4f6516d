"""Where a row begins: the tokens that a decoder is given before it writes its first one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from bild import checks


def prompt_of(
    models: dict[str, PreTrainedModel],
    config: GenerationConfig,
    inputs: dict[str, Any],
    decoder_input_ids: Tensor | None,
) -> Tensor:
    """(B, P) int64 tokens for B checked ``inputs`` of these models, the first of which leads.

    A decoder-only model's are its ``input_ids``. An encoder-decoder begins with ``decoder_input_ids`` where they are
    given, and else with the start token and with what its generation config tells a speech model (language, task).

    Raises:
        ValueError: ``decoder_input_ids`` that do not fit, no start token, or a language or task that does not exist.
    """
    model = next(iter(models.values()))
    if not model.config.is_encoder_decoder:
        if decoder_input_ids is not None:
            raise ValueError(f"a {type(model).__name__} has no encoder; its prompt is input_ids, not decoder_input_ids")
        ids: Tensor = inputs["input_ids"]
        return ids.long()
    rows = next(len(value) for value in inputs.values() if isinstance(value, Tensor))
    if decoder_input_ids is not None:
        checks.check_prompt(decoder_input_ids, rows, models)
        return decoder_input_ids.long()
    columns = [[_start(config)] * rows, *_instructions(model, config, inputs, rows)]
    return torch.tensor(columns, device=model.device).T.contiguous()


def _start(config: GenerationConfig) -> int:
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    if start is None:
        raise ValueError("generation_config has neither decoder_start_token_id nor bos_token_id; set the first of them")
    return checks.as_ids(start)[0]


def _instructions(model: Any, config: Any, inputs: dict[str, Any], rows: int) -> list[list[int]]:
    """What Whisper's own ``generate`` lets follow the start token, column by column: language, task, no timestamps.

    A config without these fields, that is every text model's, asks for nothing.
    """
    language, task = getattr(config, "language", None), getattr(config, "task", None)
    forced = _forced_ids(model, config) if language is None and task is None else []
    columns = [[token] * rows for token in forced[1:]]
    if language is not None:
        given = [language] * rows if isinstance(language, str) else list(language)
        if len(given) != rows:
            raise ValueError(f"generation_config.language names {len(given)} languages for {rows} rows")
        columns.insert(0, [_language_id(one, config.lang_to_id) for one in given])
    elif forced and forced[0] is not None:
        columns.insert(0, [forced[0]] * rows)
    elif hasattr(config, "lang_to_id"):
        features = inputs[model.main_input_name].to(model.dtype)
        columns.insert(0, model.detect_language(features, generation_config=config).tolist())
    tasks = getattr(config, "task_to_id", {})
    if task is not None or (language is not None and tasks):
        columns.append([_task_id("transcribe" if task is None else task, tasks)] * rows)
    no_timestamps = getattr(config, "no_timestamps_token_id", None)
    if no_timestamps is not None and columns[-1:] != [[no_timestamps] * rows]:
        columns.append([no_timestamps] * rows)
    return columns


def _forced_ids(model: Any, config: Any) -> list[Any]:
    """The old way of giving these instructions: ids by position, the first one None where the language is open."""
    pairs = getattr(config, "forced_decoder_ids", None)
    if pairs is None:
        pairs = getattr(model.config, "forced_decoder_ids", None)
    if pairs is None:
        return []
    if [position for position, _ in pairs] != list(range(1, len(pairs) + 1)):
        raise ValueError(f"forced_decoder_ids={pairs} must give an id for every position from 1 on")
    return [token for _, token in pairs]


def _language_id(language: str, known: dict[str, int]) -> int:
    for name in (language, f"<|{language.lower()}|>"):
        if name in known:
            return known[name]
    raise ValueError(f"language={language!r} is not in generation_config.lang_to_id; use a code that is, such as 'en'")


def _task_id(task: str, known: dict[str, int]) -> int:
    if task not in known:
        raise ValueError(f"task={task!r} is not in generation_config.task_to_id; use one of {sorted(known)}")
    return known[task]
