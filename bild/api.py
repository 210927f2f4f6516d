"""The front door: arguments in Hugging Face's terms to one call of the round loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from bild import checks, config_fields, processors
from bild.decode import Decoder
from bild.engine import make_dynamic_depth, make_runner
from bild.engine.runner import Runner
from bild.engine.shortlist import listed_ids
from bild.policies.base import Policy
from bild.prompt import prompt_of
from bild.rows import Request
from bild.sampling import RowStreams, Sampler
from bild.sources.base import DraftSource
from bild.types import DecodeOutput

DEFAULT_NEW_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of ``generate`` whose arguments have been checked and completed."""

    models: dict[str, PreTrainedModel]
    """those that take part, "large" first"""
    source: DraftSource | None
    """what drafts in place of a small model"""
    inputs: dict[str, dict[str, Any]]
    """what each runner is prefilled with"""
    policy: Policy
    prompt: Tensor
    """(B, P) int64 decoder start tokens, or prompts"""
    max_new_tokens: int
    config: GenerationConfig
    sampler: Sampler
    generator: torch.Generator | Sequence[torch.Generator] | None
    logits_processor: LogitsProcessorList
    stopping_criteria: StoppingCriteriaList | None
    shortlist: Sequence[int] | None
    engine: str


@torch.no_grad()
def generate(
    large: PreTrainedModel | None,
    small: PreTrainedModel | DraftSource | None,
    input_ids: Tensor | None = None,
    *,
    policy: Policy,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    generation_config: GenerationConfig | None = None,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    streamer: Any = None,
    shortlist: Sequence[int] | None = None,
    engine: str = "auto",
    decoder_input_ids: Tensor | None = None,
    **encoder_inputs: Any,
) -> DecodeOutput:
    """Decode a batch with a large and a small model, both encoder-decoders or both decoder-only, or with a large one
    and something else that drafts (``bild.sources``).

    ``input_ids`` (B, S) int64 and ``attention_mask`` (B, S), or whatever else the encoders take, by keyword
    (``input_features`` for Whisper). For decoder-only models they are the prompts, padded on the left. ``policy``
    decides who writes (``bild.BigLittle()``, ``bild.LargeOnly()``, ``bild.SmallOnly()``); a model that it does not use
    may be None. ``max_new_tokens`` >= 1 counts written tokens, EOS included; where it is left out,
    ``max_new_tokens`` or ``max_length`` of the given ``generation_config`` holds, and without them 128. Sampling:
    ``temperature`` >= 0 (0 = greedy), ``top_k`` >= 1, ``top_p`` in (0, 1]; ``generator`` is one generator (which gives
    one seed per row) or one per row. Token ids, minimum lengths and repetition fields come from ``generation_config``,
    and where it leaves them open from the large model's own; sampling fields only from arguments. Logits processors
    and stopping criteria see the prompt and what is written after it, as in transformers. ``streamer`` as in
    transformers, for a batch of one: it gets what each round settles, and each token of a small model alone.
    ``shortlist``: the only token ids that the small model (or ``bild.EarlyExit``) may draft, EOS always among them; its
    distribution is then the softmax over these, and its head costs as much less. ``engine``: see
    ``bild.engine.make_runner``; with "graphs", one call at a time on a device, for graphs share their scratch memory.
    ``decoder_input_ids`` (B, P) are an encoder-decoder's first tokens, the start token included; without them it
    begins with the start token, and Whisper with its language and task too.

    Returns a ``DecodeOutput``, whose sequences start with the prompt. Raises ValueError on bad input before any work,
    and at the first NaN logits, naming the model and the step.
    """
    return decode(
        resolve(
            large,
            small,
            input_ids,
            policy=policy,
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
            generation_config=generation_config,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            shortlist=shortlist,
            engine=engine,
            decoder_input_ids=decoder_input_ids,
            **encoder_inputs,
        ),
        streamer,
    )


def resolve(
    large: PreTrainedModel | None,
    small: PreTrainedModel | DraftSource | None,
    input_ids: Tensor | None = None,
    *,
    policy: Policy,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    generation_config: GenerationConfig | None = None,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    shortlist: Sequence[int] | None = None,
    engine: str = "auto",
    decoder_input_ids: Tensor | None = None,
    **encoder_inputs: Any,
) -> Call:
    """The arguments of ``generate``, checked and completed, before any work."""
    inputs = {name: value for name, value in encoder_inputs.items() if value is not None}
    if input_ids is not None:
        inputs["input_ids"] = input_ids
    sampler = Sampler(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p)
    checks.check_models(large, small, policy)
    checks.check_mode(policy, sampler)
    if max_new_tokens is not None:
        checks.check_new_tokens(max_new_tokens)
    models, source = models_in_use(large, small, policy), source_in_use(small, policy)
    lead = next(iter(models.values())) if large is None else large
    if generation_config is not None:
        config_fields.check_generation_config(generation_config, given_by_user=True)
    config = _complete(generation_config, lead.generation_config)
    config_fields.check_generation_config(config, given_by_user=False)
    checks.check_inputs(inputs, models, config.pad_token_id)
    prompt = prompt_of(models, config, inputs, decoder_input_ids)
    new_tokens = _new_tokens(max_new_tokens, generation_config, prompt.shape[1])
    built = processors.from_config(
        config,
        prompt_length=prompt.shape[1],
        max_length=prompt.shape[1] + new_tokens,
        eos=list(checks.as_ids(config.eos_token_id)),
        encoder_input_ids=input_ids,
        device=prompt.device,
    )
    return Call(
        models=models,
        source=source,
        inputs=dict.fromkeys(models if source is None else ("large", "small"), inputs),
        policy=policy,
        prompt=prompt,
        max_new_tokens=new_tokens,
        config=config,
        sampler=sampler,
        generator=generator,
        logits_processor=built if logits_processor is None else processors.merge(built, logits_processor),
        stopping_criteria=stopping_criteria,
        shortlist=shortlist,
        engine=engine,
    )


def decode(call: Call, streamer: Any = None) -> DecodeOutput:
    """Run the loop to the end of every row."""
    if streamer is not None and len(call.prompt) > 1:
        raise ValueError(f"a streamer shows one row, the batch holds {len(call.prompt)}; decode the rows one by one")
    decoder, _ = begin(call, streamer)
    output = decoder.run()
    if streamer is not None:
        streamer.end()
    return output


@torch.inference_mode()
def begin(call: Call, streamer: Any = None) -> tuple[Decoder, dict[str, Runner]]:
    """Prefill the models that take part. Returns the loop, ready to run, and their runners."""
    prompt, eos = call.prompt, checks.as_ids(call.config.eos_token_id)
    checks.check_lengths(call.max_new_tokens, prompt.shape[1], call.models)
    streams = None if call.sampler.greedy else RowStreams.of(call.generator, len(prompt), prompt.device)
    runners = _runners(call, prompt.shape[1] + call.max_new_tokens)
    request = Request(
        prompt=prompt,
        max_new_tokens=call.max_new_tokens,
        eos_token_ids=eos,
        pad_token_id=_pad(call.config),
        sampler=call.sampler,
        streams=streams,
        processors=call.logits_processor,
        stopping_criteria=StoppingCriteriaList()
        if call.stopping_criteria is None
        else StoppingCriteriaList(call.stopping_criteria),
        on_settled=None if streamer is None else _put_into(streamer),
    )
    for name, runner in runners.items():
        runner.prefill(**call.inputs[name])
    if streamer is not None:
        streamer.put(prompt.cpu())
    return Decoder(runners.get("large"), runners.get("small"), call.policy, request), runners


def models_in_use(
    large: PreTrainedModel | None, small: PreTrainedModel | DraftSource | None, policy: Policy
) -> dict[str, PreTrainedModel]:
    """The models that take part, the large one first. A draft source works with the large one's weights or inputs."""
    drafts = small if policy.uses_small else None
    candidates = {
        "large": large if policy.uses_large or isinstance(drafts, DraftSource) else None,
        "small": None if isinstance(drafts, DraftSource) else drafts,
    }
    return {name: model for name, model in candidates.items() if model is not None}


def source_in_use(small: PreTrainedModel | DraftSource | None, policy: Policy) -> DraftSource | None:
    """What drafts in place of a small model."""
    return small if isinstance(small, DraftSource) and policy.uses_small else None


def _runners(call: Call, length: int) -> dict[str, Runner]:
    """A runner for each that takes part, for rows of at most ``length`` tokens, the large model's first."""
    listed = None
    if call.shortlist is not None:
        if call.source is not None and not call.source.has_head:
            raise ValueError(f"a shortlist is for a small model's head, but {call.source} drafts; leave one out")
        listed = listed_ids(call.shortlist, checks.as_ids(call.config.eos_token_id), call.models)
    if call.source is not None:
        large, drafts = call.source.runners(call.models["large"], call.engine, length, listed)
        return {"large": large, "small": drafts}
    runners: dict[str, Runner] = {}
    for name, model in call.models.items():
        if name == "large" and call.policy.exits is not None:
            runners[name] = make_dynamic_depth(model, call.engine, length, call.policy.exits)
        else:
            runners[name] = make_runner(model, call.engine, length, listed if name == "small" else None)
    return runners


def _complete(given: GenerationConfig | None, own: GenerationConfig) -> GenerationConfig:
    """The fields that the user gave; what they left open is the model's own, as in transformers."""
    if given is None:
        return own
    merged = copy.deepcopy(given)
    for name, value in own.to_dict().items():
        if getattr(merged, name, None) is None:
            setattr(merged, name, value)
    return merged


def _new_tokens(argument: int | None, given: GenerationConfig | None, prompt_length: int) -> int:
    """How many tokens to write at most. The model's own file has no say in it."""
    if argument is not None:
        return argument
    if given is not None and given.max_new_tokens is not None:
        return int(given.max_new_tokens)
    if given is not None and given.max_length is not None:
        if given.max_length <= prompt_length:
            raise ValueError(
                f"max_length={given.max_length} in generation_config leaves nothing to write after {prompt_length} "
                "prompt tokens; raise it or set max_new_tokens"
            )
        return int(given.max_length) - prompt_length
    return DEFAULT_NEW_TOKENS


def _pad(config: GenerationConfig) -> int:
    """The pad id; EOS where a model has none, as transformers does; 0 where rows only end by length."""
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    return next(iter(checks.as_ids(config.eos_token_id)), 0)


def _put_into(streamer: Any) -> Callable[[Tensor], None]:
    def put(tokens: Tensor) -> None:
        streamer.put(tokens.cpu())

    return put
