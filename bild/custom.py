"""Two-model decoding from inside ``model.generate(custom_generate=bild.custom_generate, small=..., policy=...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.utils import GenerateEncoderDecoderOutput

from bild import checks, processors
from bild.api import decode
from bild.policies.base import Policy
from bild.sampling import Sampler


def custom_generate(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    inputs_tensor: Tensor | None = None,
    small: PreTrainedModel | None = None,
    policy: Policy | None = None,
    engine: str = "auto",
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateEncoderDecoderOutput:
    """The callable for transformers' ``generate``; ``model`` is the large one, ``input_ids`` (B, P) its decoder prompt.

    The large model's encoder output, which transformers has already computed, is used again. Sampling follows the
    call's ``do_sample``, ``temperature``, ``top_k`` and ``top_p``. Returns (B, T) sequences, or a
    ``GenerateEncoderDecoderOutput`` with ``return_dict_in_generate=True``. Raises ValueError on bad input, on
    ``num_beams`` or ``num_return_sequences`` above 1 and on sampling methods other than those three.
    """
    if policy is None:
        raise ValueError("custom_generate needs policy=..., such as policy=bild.BigLittle()")
    checks.check_models(model, small, policy)
    checks.check_one_sequence(generation_config)
    sampler = Sampler(
        do_sample=bool(generation_config.do_sample),
        temperature=1.0 if generation_config.temperature is None else generation_config.temperature,
        top_k=generation_config.top_k if generation_config.top_k else None,
        top_p=generation_config.top_p,
    )
    checks.check_mode(policy, sampler)
    mask = model_kwargs.get("attention_mask")
    models: dict[str, PreTrainedModel] = {"large": model} if policy.uses_large else {}
    inputs: dict[str, dict[str, Any]] = {
        "large": {"encoder_outputs": model_kwargs["encoder_outputs"], "attention_mask": mask}
    }
    if small is not None and policy.uses_small:
        models["small"] = small
        inputs["small"] = {small.main_input_name: inputs_tensor}
        if mask is not None:
            inputs["small"]["attention_mask"] = mask
        checks.check_inputs(inputs["small"], models, generation_config.pad_token_id)
    output = decode(
        models,
        inputs,
        policy,
        prompt=input_ids,
        max_new_tokens=int(generation_config.max_length) - input_ids.shape[1],
        config=generation_config,
        sampler=sampler,
        generator=generator,
        logits_processor=processors.split_off_warpers(logits_processor),
        stopping_criteria=_own_left_out(stopping_criteria),
        streamer=None,
        engine=engine,
    )
    if generation_config.return_dict_in_generate:
        return GenerateEncoderDecoderOutput(sequences=output.sequences)
    return output.sequences


def _own_left_out(criteria: StoppingCriteriaList) -> StoppingCriteriaList:
    """The list that transformers prepared, without EOS and length: the round loop knows which EOS ends a row."""
    own = (EosTokenCriteria, MaxLengthCriteria)
    return StoppingCriteriaList([criterion for criterion in criteria if not isinstance(criterion, own)])
