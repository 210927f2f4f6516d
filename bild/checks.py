"""Bad input is refused here, before any work: one line that says what, where, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bild.policies.base import Policy
from bild.sampling import Sampler
from bild.sources.base import DraftSource

_UNFIT = {
    "FSMTForConditionalGeneration": "reads drafts without a causal mask",
    "ProphetNetForConditionalGeneration": "reads one token at a time",
    "SwitchTransformersForConditionalGeneration": "routes a token by what else is in the batch",
    "NllbMoeForConditionalGeneration": "routes a token by what else is in the batch",
}
"""Models of transformers that cannot read several tokens behind a cache as they would one by one, and why."""
_POSITION_TABLES = ("embed_positions", "position_embeddings", "wpe")
"""What transformers' models call the embedding of their positions."""


def check_models(large: PreTrainedModel | None, small: PreTrainedModel | DraftSource | None, policy: Policy) -> None:
    """The models that the policy needs are there, can write, are in eval mode, of one kind and on one device."""
    needs_large, needs_small = policy.uses_large, policy.uses_small
    if isinstance(small, DraftSource):
        if needs_small:
            _check_source(small, large, policy)
        small, needs_large, needs_small = None, needs_large or needs_small, False
    needed = {"large": (large, needs_large), "small": (small, needs_small)}
    for name, (model, is_needed) in needed.items():
        if not is_needed:
            continue
        if model is None:
            raise ValueError(f"{policy} needs a {name} model; pass {name}=...")
        if not model.can_generate():
            raise ValueError(
                f"the {name} model is a {type(model).__name__}, which writes no text; "
                "load it with AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq or AutoModelForCausalLM"
            )
        reason = _why_unfit(model)
        if reason is not None:
            raise ValueError(f"the {name} model is a {type(model).__name__}, which {reason}; use another model")
        if model.training:
            raise ValueError(f"the {name} model is in training mode, so dropout would change its output; call eval()")
    if large is not None and small is not None and policy.uses_large and policy.uses_small:
        _check_pair(large, small)


def _check_source(source: DraftSource, large: PreTrainedModel | None, policy: Policy) -> None:
    """It has a large model to draft for, and has always something to say where the policy relies on that."""
    if large is None:
        raise ValueError(f"{source} drafts for a large model; pass large=...")
    kind = type(policy).__name__  # one sentence for all settings of a policy
    if policy.max_draft is None and not source.writes_alone:
        raise ValueError(f"{source} does not write whole texts, but {kind} asks for them; use another policy")
    if not (policy.verifies_all or source.writes_alone):
        raise ValueError(
            f"{source} only guesses, and {kind} lets drafted tokens stand without asking the large model about them; "
            "use a policy that verifies all of them, such as Speculative, or BigLittle with verify_eos=True"
        )
    if policy.looks_ahead and not source.writes_alone:
        raise ValueError(
            f"{kind} asks for a distribution behind every draft, and {source} may have nothing to say there; "
            "use another policy, or one of its settings that does not look ahead"
        )
    source.check(large)


def _why_unfit(model: PreTrainedModel) -> str | None:
    """Why a model cannot verify a draft and take it back; None if it can."""
    if model._is_stateful:
        return "keeps a state that cannot take back a token"
    if "past_key_values" not in _parameters(type(model).forward):
        return "keeps no cache of keys and values"
    return _UNFIT.get(type(model).__name__)


def _check_pair(large: PreTrainedModel, small: PreTrainedModel) -> None:
    if large.config.is_encoder_decoder != small.config.is_encoder_decoder:
        ours, theirs = (
            f"{type(model).__name__} ({'encoder-decoder' if model.config.is_encoder_decoder else 'decoder-only'})"
            for model in (large, small)
        )
        raise ValueError(f"the large model is a {ours}, the small one a {theirs}; a pair must be of one kind")
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
    """The inputs are a non-empty batch that every model takes and can embed, and padding is masked."""
    for name, value in inputs.items():
        _check_tensor(name, value)
    if not any(isinstance(value, Tensor) for value in inputs.values()):
        raise ValueError(
            "no input: pass input_ids (B, S) as a tensor, or what the encoder takes, such as input_features"
        )
    for name, model in models.items():
        _check_names(inputs, name, model)
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
        _check_mask(mask, ids, models)
    elif ids is not None and pad_token_id is not None and bool((ids == pad_token_id).any()):
        row = int((ids == pad_token_id).any(-1).nonzero()[0])
        raise ValueError(
            f"input_ids row {row} holds the pad id {pad_token_id} but there is no attention_mask; pass one"
        )


def check_no_text(what: str, value: object) -> None:
    """Token ids, not the texts that they are made of."""
    if isinstance(value, str) or (isinstance(value, (list, tuple)) and any(isinstance(one, str) for one in value)):
        raise ValueError(f"{what} is text, and models read token ids: tokenize it first, tokenizer(texts)")


def _check_tensor(name: str, value: object) -> None:
    """What is given in place of a tensor most often."""
    check_no_text(name, value)
    if isinstance(value, Mapping):
        raise ValueError(
            f"{name} is a {type(value).__name__}, all that a tokenizer makes; unpack it: generate(..., **inputs)"
        )
    if isinstance(value, (list, tuple)):
        raise ValueError(f'{name} is a {type(value).__name__}; pass a tensor: tokenizer(texts, return_tensors="pt")')


def _check_names(inputs: dict[str, Any], name: str, model: PreTrainedModel) -> None:
    """Every input is one that the model takes: most would swallow a misspelt one without a word."""
    taken = ["input_ids", "attention_mask"]
    if model.config.is_encoder_decoder:
        parameters = _parameters(type(model.get_encoder()).forward).values()
        taken = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD and one.name != "self"]
    foreign = sorted(inputs.keys() - set(taken))
    kind = type(model).__name__
    if foreign:
        raise ValueError(f"the {name} model, a {kind}, takes no {foreign[0]}; it takes {', '.join(taken)}")
    if not inputs.keys() & {model.main_input_name, "inputs_embeds"}:
        raise ValueError(f"the {name} model, a {kind}, reads {model.main_input_name}, and there is none; pass it")


def _check_ids(ids: Tensor, models: dict[str, PreTrainedModel]) -> None:
    _check_tokens("input_ids", ids)
    for name, model in models.items():
        _check_embedded("input_ids", ids, model.get_input_embeddings().weight.shape[0], name)
        positions = position_limit(model.get_encoder()) if model.config.is_encoder_decoder else None
        if positions is not None and ids.shape[1] > positions:
            raise ValueError(
                f"input_ids hold {ids.shape[1]} tokens a row, the {name} model's encoder has {positions} positions; "
                "truncate them"
            )


def _check_tokens(what: str, ids: Tensor) -> None:
    if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{what} must be (batch, length) token ids, got {ids.dtype} {tuple(ids.shape)}")


def _check_embedded(what: str, ids: Tensor, size: int, name: str) -> None:
    if int(ids.max()) >= size or int(ids.min()) < 0:
        wrong = int(ids.max()) if int(ids.max()) >= size else int(ids.min())
        raise ValueError(
            f"{what} hold the id {wrong}, but the {name} model embeds ids 0 to {size - 1}; "
            "use the tokenizer that belongs to the pair"
        )


def _check_mask(mask: Tensor, ids: Tensor | None, models: dict[str, PreTrainedModel]) -> None:
    if ids is not None and mask.shape != ids.shape:
        raise ValueError(f"attention_mask is {tuple(mask.shape)}, input_ids are {tuple(ids.shape)}; they must agree")
    empty = (mask == 0).all(-1)
    if mask.dim() == 2 and bool(empty.any()):
        raise ValueError(
            f"attention_mask row {int(empty.nonzero()[0])} is all zeros: the source is empty; drop the row"
        )
    ends_masked = mask[..., -1] == 0
    if not next(iter(models.values())).config.is_encoder_decoder and bool(ends_masked.any()):
        raise ValueError(
            f"attention_mask row {int(ends_masked.nonzero()[0])} ends in padding, and a decoder-only model goes on "
            "from its last position; pad on the left"
        )


def check_prompt(ids: Tensor, rows: int, models: dict[str, PreTrainedModel]) -> None:
    """Given decoder tokens are as many rows as there are sources, and every model can embed them."""
    _check_tokens("decoder_input_ids", ids)
    if ids.numel() == 0 or len(ids) != rows:
        raise ValueError(f"decoder_input_ids have the shape {tuple(ids.shape)}; pass one row for each of {rows} inputs")
    for name, model in models.items():
        if ids.device != model.device:
            raise ValueError(f"decoder_input_ids are on {ids.device}, the models on {model.device}; move them")
        _check_embedded("decoder_input_ids", ids, model.get_output_embeddings().weight.shape[0], name)


def check_new_tokens(max_new_tokens: object) -> None:
    """Raise ValueError unless it is a whole number >= 1."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens!r} must be a whole number >= 1")


def check_lengths(max_new_tokens: int, prompt_length: int, models: dict[str, PreTrainedModel]) -> None:
    """At least one token may be written, and embedded positions reach that far."""
    check_new_tokens(max_new_tokens)
    for name, model in models.items():
        positions = position_limit(model.get_decoder())
        if positions is not None and prompt_length + max_new_tokens > positions:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} after {prompt_length} decoder tokens exceeds the {name} model's "
                f"{positions} positions; use at most {positions - prompt_length}"
            )


def position_limit(part: nn.Module) -> int | None:
    """Positions that an encoder or decoder can tell apart; None where they are computed (rotary, relative, tables that
    grow), so that there is no end to them."""
    tables = [
        module.num_embeddings - int(getattr(module, "offset", 0))
        for name, module in _outside_layers(part)
        if isinstance(module, nn.Embedding) and name in _POSITION_TABLES
    ]
    return min(tables, default=None)


def _outside_layers(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What a model is made of, with its own name, apart from its stacks of layers: most of it, and never a table."""
    for name, child in part.named_children():
        if not isinstance(child, nn.ModuleList):
            yield name, child
            yield from _outside_layers(child)


@cache
def _parameters(forward: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a forward takes; to be asked of the class, since an instance may carry a wrapper that takes anything."""
    return inspect.signature(forward).parameters


def check_mode(policy: Policy, sampler: Sampler) -> None:
    """The policy can decode in this mode."""
    policy.check(greedy=sampler.greedy)


def as_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """An id, a list of ids or none, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
