"""Two-model decoding from inside ``model.generate(custom_generate=bild.custom_generate, small=..., policy=...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

from bild import checks, config_fields, processors
from bild.api import Call, decode, models_in_use, source_in_use
from bild.policies.base import Policy
from bild.sampling import Sampler
from bild.sources.base import DraftSource


def custom_generate(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    inputs_tensor: Tensor | None = None,
    small: PreTrainedModel | DraftSource | None = None,
    policy: Policy | None = None,
    engine: str = "auto",
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateEncoderDecoderOutput | GenerateDecoderOnlyOutput:
    """The callable for transformers' ``generate``; ``model`` is the large one, ``input_ids`` (B, P) its decoder prompt,
    which for a decoder-only model is the whole input.

    The large model's encoder output, which transformers has already computed, is used again; a cache is not. Sampling
    follows the call's ``do_sample``, ``temperature``, ``top_k`` and ``top_p``. Returns (B, T) sequences, or a
    ``GenerateEncoderDecoderOutput`` or ``GenerateDecoderOnlyOutput`` with ``return_dict_in_generate=True``. Raises
    ValueError on bad input, on ``num_beams`` or ``num_return_sequences`` above 1 and on sampling methods other than
    those three.
    """
    if policy is None:
        raise ValueError("custom_generate needs policy=..., such as policy=bild.BigLittle()")
    checks.check_models(model, small, policy)
    config_fields.check_one_sequence(generation_config)
    sampler = Sampler(
        do_sample=bool(generation_config.do_sample),
        temperature=1.0 if generation_config.temperature is None else generation_config.temperature,
        top_k=generation_config.top_k if generation_config.top_k else None,
        top_p=generation_config.top_p,
    )
    checks.check_mode(policy, sampler)
    models, source = models_in_use(model, small, policy), source_in_use(small, policy)
    inputs = _inputs(models, input_ids, inputs_tensor, model_kwargs)
    for name, one in models.items():
        # For a decoder-only model transformers has drawn up a mask itself, and dropped it where nothing is padding.
        pad = generation_config.pad_token_id if one.config.is_encoder_decoder else None
        if "encoder_outputs" not in inputs[name]:
            checks.check_inputs(inputs[name], {name: one}, pad)
    if source is not None:
        inputs["small"] = _read(model, input_ids, inputs_tensor, model_kwargs)
    output = decode(
        Call(
            models=models,
            source=source,
            inputs=inputs,
            policy=policy,
            prompt=input_ids,
            max_new_tokens=int(generation_config.max_length) - input_ids.shape[1],
            config=generation_config,
            sampler=sampler,
            generator=generator,
            logits_processor=processors.split_off_warpers(logits_processor),
            stopping_criteria=_own_left_out(stopping_criteria),
            shortlist=None,
            engine=engine,
        )
    )
    if not generation_config.return_dict_in_generate:
        return output.sequences
    kind = GenerateEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateDecoderOnlyOutput
    return kind(sequences=output.sequences)


def _inputs(
    models: dict[str, PreTrainedModel], prompt: Tensor, source: Tensor | None, model_kwargs: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What each runner is prefilled with, from what transformers has prepared."""
    padding = model_kwargs.get("decoder_attention_mask")
    if padding is not None and not bool(padding.all()):
        raise ValueError("decoder prompts of different lengths are not supported; decode their rows one by one")
    inputs: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        inputs[name] = _read(model, prompt, source, model_kwargs)
        if name == "large" and model.config.is_encoder_decoder:
            del inputs[name][model.main_input_name]
            inputs[name]["encoder_outputs"] = model_kwargs["encoder_outputs"]
    return inputs


def _read(
    model: PreTrainedModel, prompt: Tensor, source: Tensor | None, model_kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a model of this kind reads: its source, or the prompt, and the mask."""
    inputs: dict[str, Any] = (
        {model.main_input_name: source} if model.config.is_encoder_decoder else {"input_ids": prompt}
    )
    if model_kwargs.get("attention_mask") is not None:
        inputs["attention_mask"] = model_kwargs["attention_mask"]
    return inputs


def _own_left_out(criteria: StoppingCriteriaList) -> StoppingCriteriaList:
    """The list that transformers prepared, without EOS and length: the round loop knows which EOS ends a row."""
    own = (EosTokenCriteria, MaxLengthCriteria)
    return StoppingCriteriaList([criterion for criterion in criteria if not isinstance(criterion, own)])
