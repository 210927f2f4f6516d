"""Any number of inputs through a batch of fixed size: a row that has ended gives its place to the next input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bild import checks
from bild.api import Call, begin, models_in_use, resolve
from bild.decode import Decoder
from bild.engine import parts_rows
from bild.engine.runner import Runner
from bild.policies.base import Policy
from bild.processors import PER_ROW
from bild.sampling import RowStreams
from bild.sources.base import DraftSource
from bild.types import DecodeOutput

Source = Sequence[int] | Tensor | Mapping[str, Tensor]
Numbered = tuple[int, Source]
Generators = torch.Generator | Callable[[int], torch.Generator] | None
Stream = torch.Generator | None


class RestartError(ValueError):
    """A row of this call cannot be given another source; ``bild.generate`` decodes whole batches."""


# What is yielded is the caller's, in whatever mode, and to be written to.
@torch.inference_mode(False)
@torch.no_grad()
def generate_many(
    large: PreTrainedModel | None,
    small: PreTrainedModel | DraftSource | None,
    inputs: Iterable[Source],
    *,
    policy: Policy,
    batch_size: int = 16,
    ordered: bool = True,
    generator: Generators = None,
    **keywords: Any,
) -> Iterator[tuple[int, DecodeOutput]]:
    """Decode any number of sources, ``batch_size`` at a time, and yield each with its number as soon as it is done.

    Each input is one source: its token ids without padding, as a list or an (S,) tensor, or a mapping of what the
    encoder takes to tensors of one row, such as ``{"input_ids": (1, S), "attention_mask": (1, S)}``. ``ordered``: a
    text waits for those before it. ``generator`` gives one seed per input, in their order, or it is a function from an
    input's number to a generator of its own, asked when the input's turn comes; where it fails, the input is a bad one.
    ``keywords`` are those of ``generate``, ``streamer`` excepted. A text is the one that ``generate`` writes in any
    batch. Where rows of different lengths cannot run together (``bild.engine.parts_rows``: transformers' forward), a
    batch begins when the one before it has ended.

    Raises ValueError on bad input: of the first ``batch_size`` before any work (``RestartError`` if these models or
    settings need whole batches), of a later one when its turn comes, once what is under way has been finished and
    yielded.
    """
    _check_arguments(inputs, batch_size, generator, keywords)
    checks.check_models(large, small, policy)
    pending = enumerate(inputs)
    first = list(islice(pending, batch_size))
    if not first:
        return
    device = next(iter(models_in_use(large, small, policy).values())).device
    sources = _collated(first, device)
    prompt = keywords.get("decoder_input_ids")
    if isinstance(prompt, Tensor) and prompt.dim() == 2 and len(prompt) == 1:
        keywords["decoder_input_ids"] = prompt.expand(len(first), -1)
    call = resolve(large, small, policy=policy, **sources, **keywords)
    _check_restartable(call)
    for index, source in first:
        _check_unpadded(index, source, call.config.pad_token_id)
    streams = [_stream(call, generator, index) for index, _ in first]
    decoder, runners = begin(replace(call, generator=[one for one in streams if one is not None]))
    held = {row: index for row, (index, _) in enumerate(first)}
    done: dict[int, DecodeOutput] = {}
    in_waves = any(parts_rows(model, call.engine) for model in call.models.values())
    free: list[int] = []
    expected, failure = 0, None
    while held:
        closed = decoder.round()
        free += closed
        for row in closed:
            done[held.pop(row)] = decoder.take(row)
        while done and (not ordered or expected in done):
            index = expected if ordered else next(iter(done))
            expected += 1
            yield index, done.pop(index)
        if failure is not None or (in_waves and held):
            continue
        try:
            newcomers, streams, failure = _readable(pending, len(free), call, generator)
            if newcomers:
                rows, free = free[: len(newcomers)], free[len(newcomers) :]
                _restart(decoder, runners, rows, newcomers, streams, device)
                held.update(zip(rows, (index for index, _ in newcomers), strict=True))
        except Exception as error:  # what is under way is finished first
            failure = error
    if failure is not None:
        raise failure


def _check_arguments(inputs: object, batch_size: object, generator: object, keywords: Mapping[str, Any]) -> None:
    """Raise ValueError on what can be told without a model."""
    foreign = sorted({"input_ids", "attention_mask", "streamer"} & keywords.keys())
    if foreign:
        raise ValueError(f"{foreign[0]} is not for generate_many, whose inputs are one source each; use generate")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be a whole number >= 1")
    if not (generator is None or isinstance(generator, torch.Generator) or callable(generator)):
        raise ValueError(
            "generator must be one generator, which seeds every input, or a function from an input's number to its "
            f"own: got a {type(generator).__name__}"
        )
    if isinstance(inputs, (str, Mapping)) or not isinstance(inputs, Iterable):
        raise ValueError(
            f'inputs is a {type(inputs).__name__}; pass one source after the other: tokenizer(texts)["input_ids"]'
        )


def _readable(
    pending: Iterator[Numbered], count: int, call: Call, generator: Generators
) -> tuple[list[Numbered], list[Stream], Exception | None]:
    """The next inputs, ``count`` at most, up to the first that cannot be had or decoded, the stream of each, and what
    is wrong with that one."""
    taken: list[Numbered] = []
    streams: list[Stream] = []
    try:
        for index, source in islice(pending, count):
            sources = _collated([*taken[:1], (index, source)], call.prompt.device)
            last = {name: value[-1:] for name, value in sources.items()}
            try:
                checks.check_inputs(last, call.models, call.config.pad_token_id)
            except ValueError as error:
                raise ValueError(f"input {index}: {error}") from error
            _check_unpadded(index, source, call.config.pad_token_id)
            streams.append(_stream(call, generator, index))
            taken.append((index, source))
    except Exception as error:  # of the caller's iterator or function, or of an input
        return taken, streams, error
    return taken, streams, None


@torch.inference_mode()
def _restart(
    decoder: Decoder,
    runners: Mapping[str, Runner],
    rows: Sequence[int],
    newcomers: Sequence[Numbered],
    streams: Sequence[Stream],
    device: torch.device,
) -> None:
    """Put new sources into rows that have been taken."""
    sources = _collated(newcomers, device)
    for runner in runners.values():
        runner.restart(rows, **sources)
    for row, (index, _), stream in zip(rows, newcomers, streams, strict=True):
        decoder.reopen(row, index, stream)


def _stream(call: Call, generator: Generators, index: int) -> Stream:
    """Where the random numbers of an input come from; None if it needs none."""
    if call.sampler.greedy:
        return None
    device = call.prompt.device
    if generator is None or isinstance(generator, torch.Generator):
        return RowStreams.of(generator, 1, device).generators[0]
    try:
        own = generator(index)
        if not isinstance(own, torch.Generator):
            raise ValueError(f"generator({index}) must be a torch.Generator: got a {type(own).__name__}")
        return RowStreams.of([own], 1, device).generators[0]
    except Exception as error:  # of the caller's function
        raise ValueError(f"input {index}: {error}") from error


def _collated(numbered: Sequence[Numbered], device: torch.device) -> dict[str, Any]:
    """Sources of one row each as one batch of tensors; token ids are padded on the right with 0 and masked."""
    others = [one for _, one in numbered if isinstance(one, Mapping) and "input_ids" not in one]
    if others:
        return _joined(others, numbered)
    rows = [_ids(source, index) for index, source in numbered]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _joined(others: Sequence[Mapping[str, Tensor]], numbered: Sequence[Numbered]) -> dict[str, Tensor]:
    """What an encoder takes in place of token ids, one below the other."""
    if len(others) < len(numbered) or any(one.keys() != others[0].keys() for one in others):
        raise ValueError("the inputs are of different kinds; give all of them as token ids, or all with the same names")
    for (index, _), one in zip(numbered, others, strict=True):
        _check_tensors(one, index)
        for name, value in one.items():
            if value.shape[:1] != (1,) or value.shape != others[0][name].shape:
                raise ValueError(
                    f"input {index}: {name} has the shape {tuple(value.shape)}; give one row, as long as the others"
                )
    return {name: torch.cat([one[name] for one in others]) for name in others[0]}


def _ids(source: Source, index: int) -> Tensor:
    """(S,) token ids of one source."""
    checks.check_no_text(f"input {index}", source)
    ids = _unmasked(source, index) if isinstance(source, Mapping) else _as_tensor(source, index)
    no_ids = ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool
    if ids.dim() != 1 or len(ids) == 0 or no_ids:
        raise ValueError(
            f"input {index} must be the token ids of one source, at least one: got {ids.dtype} {tuple(ids.shape)}"
        )
    return ids


def _as_tensor(source: Any, index: int) -> Tensor:
    try:
        return torch.as_tensor(source)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"input {index} must be the token ids of one source: got a {type(source).__name__}") from error


def _unmasked(source: Mapping[str, Tensor], index: int) -> Tensor:
    """(S,) token ids of a mapping, without the padding behind them."""
    _check_tensors(source, index)
    ids, mask = source["input_ids"], source.get("attention_mask")
    shapes = {name: tuple(value.shape) for name, value in source.items()}
    if len(ids) != 1 or len(set(shapes.values())) > 1 or not source.keys() <= {"input_ids", "attention_mask"}:
        raise ValueError(
            f"input {index} must hold input_ids (1, S) and attention_mask (1, S) of one source, nothing else: got "
            f"{shapes}"
        )
    if mask is None:
        return ids[0]
    if bool((mask[0, 1:].bool() & ~mask[0, :-1].bool()).any()):
        raise ValueError(
            f"input {index}: attention_mask leaves out more than the end; use generate, or drop the padding"
        )
    return ids[0][mask[0].bool()]


def _check_tensors(source: Mapping[str, Any], index: int) -> None:
    for name, value in source.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            raise ValueError(
                f'input {index}: {name} is a {type(value).__name__}; pass tensors: tokenizer(text, return_tensors="pt")'
            )


def _check_unpadded(index: int, source: Source, pad_token_id: int | None) -> None:
    """Token ids that come without a mask are all of the source."""
    ids = source.get("input_ids") if isinstance(source, Mapping) else source
    if ids is None or (isinstance(source, Mapping) and source.get("attention_mask") is not None):
        return
    if pad_token_id is not None and bool((torch.as_tensor(ids) == pad_token_id).any()):
        raise ValueError(
            f"input {index} holds the pad id {pad_token_id}; give its token ids without padding, or with their "
            "attention_mask"
        )


def _check_restartable(call: Call) -> None:
    """Rows can be given other sources: what stands before a row's first token is the same for all of them."""
    if not next(iter(call.models.values())).config.is_encoder_decoder:
        raise RestartError("generate_many is for encoder-decoder models; prompts differ in length: use generate")
    if getattr(call.config, "is_multilingual", False) and getattr(call.config, "language", None) is None:
        raise RestartError(
            "generate_many would hold every input for the first ones' language: set generation_config.language"
        )
    if bool((call.prompt != call.prompt[0]).any()):
        raise RestartError("generate_many needs one decoder prompt for all inputs; use generate")
    for processor in call.logits_processor:
        if isinstance(processor, PER_ROW):
            raise RestartError(f"{type(processor).__name__} looks at a batch's first sources only; use generate")
