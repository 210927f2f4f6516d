"""Bad input is refused here, before any work: one line that says what, where, and what to do."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from bild.policies.base import Policy
from bild.sampling import Sampler

_ONE_SEQUENCE = {
    "num_beams": "two-model decoding writes one sequence; leave it at 1",
    "num_return_sequences": "two-model decoding writes one sequence; leave it at 1",
}
_NOT_READ = {
    "guidance_scale": "it needs a cache of its own; leave it at 1",
    "watermarking_config": "pass its processor as logits_processor",
    "stop_strings": "pass a StopStringCriteria as stopping_criteria",
    "remove_invalid_values": "NaN logits are an error here; load the model in bfloat16 or float32",
    "max_time": "pass a MaxTimeCriteria as stopping_criteria",
}
"""Fields that transformers' generate() reads and this decoder does not, and what to do instead."""
_NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "guidance_scale": 1, "remove_invalid_values": False}


def check_models(large: PreTrainedModel | None, small: PreTrainedModel | None, policy: Policy) -> None:
    """The models that the policy needs are there, are encoder-decoders in eval mode, and stand on one device."""
    needed = {"large": (large, policy.uses_large), "small": (small, policy.uses_small)}
    for name, (model, is_needed) in needed.items():
        if not is_needed:
            continue
        if model is None:
            raise ValueError(f"{policy} needs a {name} model; pass {name}=...")
        if not model.config.is_encoder_decoder:
            raise ValueError(f"the {name} model is a {type(model).__name__}; only encoder-decoder models are supported")
        if model.training:
            raise ValueError(f"the {name} model is in training mode, so dropout would change its output; call eval()")
    if large is not None and small is not None and policy.uses_large and policy.uses_small:
        _check_pair(large, small)


def _check_pair(large: PreTrainedModel, small: PreTrainedModel) -> None:
    if large.device != small.device:
        raise ValueError(f"the large model is on {large.device}, the small one on {small.device}; move one of them")
    for field in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
        ours, theirs = getattr(large.generation_config, field), getattr(small.generation_config, field)
        if set(as_ids(ours)) != set(as_ids(theirs)):
            raise ValueError(
                f"{field} is {ours} in the large model and {theirs} in the small one; "
                "a pair must share one tokenizer and its special ids"
            )


def check_inputs(inputs: dict[str, Any], models: dict[str, PreTrainedModel], pad_token_id: int | None) -> None:
    """The encoder inputs are a non-empty batch that every model can embed, and padding is masked."""
    if not any(isinstance(value, Tensor) for value in inputs.values()):
        raise ValueError(
            "no input: pass input_ids (B, S) as a tensor, or what the encoder takes, such as input_features"
        )
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.numel() == 0:
            raise ValueError(f"{name} is empty (shape {tuple(value.shape)}); pass at least one row and one position")
    sizes = {name: len(value) for name, value in inputs.items() if isinstance(value, Tensor)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the inputs hold different numbers of rows: {sizes}")
    device = next(iter(models.values())).device
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.device != device:
            raise ValueError(f"{name} is on {value.device}, the models are on {device}; move it with .to(...)")
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is not None:
        _check_ids(ids, models)
    if mask is not None:
        _check_mask(mask, ids)
    elif ids is not None and pad_token_id is not None and bool((ids == pad_token_id).any()):
        row = int((ids == pad_token_id).any(-1).nonzero()[0])
        raise ValueError(
            f"input_ids row {row} holds the pad id {pad_token_id} but there is no attention_mask; pass one"
        )


def _check_ids(ids: Tensor, models: dict[str, PreTrainedModel]) -> None:
    if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"input_ids must be (batch, source length) token ids, got {ids.dtype} {tuple(ids.shape)}")
    for name, model in models.items():
        size = int(model.get_input_embeddings().weight.shape[0])
        if int(ids.max()) >= size or int(ids.min()) < 0:
            wrong = int(ids.max()) if int(ids.max()) >= size else int(ids.min())
            raise ValueError(
                f"input_ids hold the id {wrong}, but the {name} model embeds ids 0 to {size - 1}; "
                "use the tokenizer that belongs to the pair"
            )


def _check_mask(mask: Tensor, ids: Tensor | None) -> None:
    if ids is not None and mask.shape != ids.shape:
        raise ValueError(f"attention_mask is {tuple(mask.shape)}, input_ids are {tuple(ids.shape)}; they must agree")
    empty = (mask == 0).all(-1)
    if mask.dim() == 2 and bool(empty.any()):
        raise ValueError(
            f"attention_mask row {int(empty.nonzero()[0])} is all zeros: the source is empty; drop the row"
        )


def check_lengths(max_new_tokens: int, prompt_length: int, models: dict[str, PreTrainedModel]) -> None:
    """At least one token may be written, and learned positions reach that far."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be a whole number >= 1")
    for name, model in models.items():
        for field in ("max_position_embeddings", "max_target_positions"):
            positions = getattr(model.config, field, None)
            if positions is not None and prompt_length + max_new_tokens > positions:
                raise ValueError(
                    f"max_new_tokens={max_new_tokens} after {prompt_length} decoder tokens exceeds the {name} model's "
                    f"{positions} positions ({field}); use at most {positions - prompt_length}"
                )


def check_generation_config(config: GenerationConfig, *, given_by_user: bool) -> None:
    """Fields that would change the text and are not read: an error from the user, a warning from a model's own file."""
    for field, remedy in (_ONE_SEQUENCE | _NOT_READ).items():
        if not _is_set(config, field):
            continue
        message = f"{field}={getattr(config, field)} in generation_config"
        if given_by_user:
            raise ValueError(f"{message} is not supported: {remedy}")
        warnings.warn(f"{message} of the model is ignored: {remedy}", stacklevel=4)


def check_one_sequence(config: GenerationConfig) -> None:
    """No beams, and one sequence per input."""
    for field, remedy in _ONE_SEQUENCE.items():
        if _is_set(config, field):
            raise ValueError(f"{field}={getattr(config, field)} is not supported: {remedy}")


def _is_set(config: GenerationConfig, field: str) -> bool:
    value = getattr(config, field, None)
    return value is not None and value != _NEUTRAL.get(field)


def check_mode(policy: Policy, sampler: Sampler) -> None:
    """The policy can decode in this mode."""
    policy.check(greedy=sampler.greedy)


def as_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """An id, a list of ids or none, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
