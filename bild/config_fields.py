"""Fields of a generation config that this decoder does not read: refused or named, never dropped without a word."""

from __future__ import annotations

import warnings

from transformers import GenerationConfig

_ONE_SEQUENCE = {
    "num_beams": "two-model decoding writes one sequence; leave it at 1",
    "num_return_sequences": "two-model decoding writes one sequence; leave it at 1",
}
_EXTRAS = dict.fromkeys(
    ("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "they are not kept; bild.generate returns a trace of who wrote each token, and how sure",
)
_NOT_READ = {
    "guidance_scale": "it needs a cache of its own; leave it at 1",
    "watermarking_config": "pass its processor as logits_processor",
    "stop_strings": "pass a StopStringCriteria as stopping_criteria",
    "remove_invalid_values": "NaN logits are an error here; load the model in bfloat16 or float32",
    "max_time": "pass a MaxTimeCriteria as stopping_criteria",
    "return_timestamps": "call large.generate(..., custom_generate=bild.custom_generate), which builds their rules",
    **_EXTRAS,
}
"""Fields that transformers' generate() reads and this decoder does not, and what to do instead."""
_NEUTRAL = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "guidance_scale": 1,
    "remove_invalid_values": False,
    "return_timestamps": False,
    **dict.fromkeys(_EXTRAS, False),
}


def check_generation_config(config: GenerationConfig, *, given_by_user: bool) -> None:
    """Fields that would change the text and are not read: an error from the user, a warning from a model's own file."""
    for field, remedy in (_ONE_SEQUENCE | _NOT_READ).items():
        if not _is_set(config, field):
            continue
        message = f"{field}={getattr(config, field)} in generation_config"
        if given_by_user:
            raise ValueError(f"{message} is not supported: {remedy}")
        warnings.warn(f"{message} of the model is ignored: {remedy}", stacklevel=5)


def check_one_sequence(config: GenerationConfig) -> None:
    """No beams, one sequence per input, and nothing but sequences is wanted."""
    for field, remedy in (_ONE_SEQUENCE | _EXTRAS).items():
        if _is_set(config, field):
            raise ValueError(f"{field}={getattr(config, field)} is not supported: {remedy}")


def _is_set(config: GenerationConfig, field: str) -> bool:
    value = getattr(config, field, None)
    return value is not None and value != _NEUTRAL.get(field)
