"""Tiny random models of many families, and inputs for them. Positions and padding matter to every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers.generation import GenerationMixin

PAD, EOS, START, VOCAB = 0, 1, 2, 24
IDS = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": START}
SEQ2SEQ = {
    **IDS, "vocab_size": VOCAB, "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_start_token_id": START,
    "tie_word_embeddings": False,
}  # fmt: skip
DECODER = {
    **IDS, "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "tie_word_embeddings": False,
}  # fmt: skip
LENGTHS = [7, 2, 5, 1]


@dataclass(frozen=True)
class Family:
    """How to make a model of this many decoder layers, and what its inputs are."""

    config: Callable[[int], Any]
    model: type
    left: bool = False
    """its prompts are padded on the left: a decoder-only model"""
    features: tuple[int, int] | None = None
    """(mel bins, frames) in place of token ids"""
    dtype: torch.dtype = torch.float64


def _seq2seq(config: type, layers: int, **fields: Any) -> Any:
    return config(**{**SEQ2SEQ, "decoder_layers": layers, "max_position_embeddings": 40, **fields})


def _decoder(config: type, layers: int, **fields: Any) -> Any:
    return config(**{**DECODER, "num_hidden_layers": layers, **fields})


def _gpt2(layers: int) -> Any:
    fields = {**IDS, "vocab_size": VOCAB, "n_embd": 16, "n_head": 2, "n_positions": 40, "tie_word_embeddings": False}
    return hf.GPT2Config(**fields, n_layer=layers)


def _whisper(layers: int) -> Any:
    return hf.WhisperConfig(
        **{**SEQ2SEQ, "decoder_layers": layers, "num_mel_bins": 4, "max_source_positions": 6},
        max_target_positions=40, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip


def _umt5(layers: int) -> Any:
    """A T5 in which every layer, and not the first alone, has a table of distances."""
    fields = {**IDS, "vocab_size": VOCAB, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    return hf.UMT5Config(**fields, num_layers=layers, decoder_start_token_id=PAD, tie_word_embeddings=False)


def _qwen2(layers: int) -> Any:
    return _decoder(hf.Qwen2Config, layers, use_sliding_window=True, sliding_window=4, max_window_layers=1)


FAMILIES = {
    "bart": Family(
        lambda n: _seq2seq(hf.BartConfig, n, forced_eos_token_id=EOS), hf.BartForConditionalGeneration
    ),
    "mbart": Family(lambda n: _seq2seq(hf.MBartConfig, n, forced_eos_token_id=EOS), hf.MBartForConditionalGeneration),
    "marian": Family(lambda n: _seq2seq(hf.MarianConfig, n, decoder_start_token_id=PAD), hf.MarianMTModel),
    "pegasus": Family(lambda n: _seq2seq(hf.PegasusConfig, n, decoder_start_token_id=PAD),
                      hf.PegasusForConditionalGeneration),
    # Its positions are computed: it writes on where the table that it starts with ends.
    "nllb": Family(
        lambda n: _seq2seq(hf.M2M100Config, n, decoder_start_token_id=EOS, max_position_embeddings=6),
        hf.M2M100ForConditionalGeneration,
    ),
    "umt5": Family(_umt5, hf.UMT5ForConditionalGeneration),
    "whisper": Family(_whisper, hf.WhisperForConditionalGeneration, features=(4, 12)),
    "gpt2": Family(_gpt2, hf.GPT2LMHeadModel, left=True),
    "llama": Family(lambda n: _decoder(hf.LlamaConfig, n), hf.LlamaForCausalLM, left=True),
    "gemma": Family(lambda n: _decoder(hf.GemmaConfig, n), hf.GemmaForCausalLM, left=True),
    # Its softmax is float32, in which float64's mask is -inf: padding, which sees nothing at all, would be NaN.
    "gemma2": Family(lambda n: _decoder(hf.Gemma2Config, n, sliding_window=4), hf.Gemma2ForCausalLM, left=True,
                     dtype=torch.float32),
    "qwen2": Family(_qwen2, hf.Qwen2ForCausalLM, left=True),
    "qwen3": Family(lambda n: _decoder(hf.Qwen3Config, n), hf.Qwen3ForCausalLM, left=True),
    "mistral": Family(lambda n: _decoder(hf.MistralConfig, n, sliding_window=4), hf.MistralForCausalLM, left=True),
}  # fmt: skip
ENCODER_DECODERS = [name for name, family in FAMILIES.items() if not family.left]
DECODER_ONLY = [name for name, family in FAMILIES.items() if family.left]


@lru_cache
def family_pair(name: str, seed: int = 0) -> tuple[Any, Any]:
    """A large model of two decoder layers and a small one that is its first layer, disturbed. Do not change them."""
    large = make(name, 2, seed)
    return large, make(name, 1, seed + 1000, like=large)


def make(name: str, layers: int, seed: int, like: nn.Module | None = None) -> Any:
    """A random model, the same for the same arguments; with ``like``, near its weights of the same name."""
    family = FAMILIES[name]
    with torch.random.fork_rng():
        model = family.model(family.config(layers)).to(family.dtype).eval()
    _fill(model, torch.Generator().manual_seed(seed), {} if like is None else dict(like.named_parameters()))
    if name == "nllb":
        # Its positions skip pads, wherever they are: a decoder that writes one is not a left-to-right model.
        model.generation_config.suppress_tokens = [PAD]
    return model


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator, base: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        noise *= _scale(name, parameter)
        twin = base.get(name)
        parameter.copy_(noise if twin is None else twin + 0.1 * noise)


def _scale(name: str, parameter: Tensor) -> float:
    """Standard deviation: sources, prefixes and positions that matter, sure heads, upper layers that correct."""
    if any(part in name for part in ("embed", "shared", "wte", "wpe")):
        return 0.5
    gain = 1.5
    if any(part in name for part in ("lm_head", "proj_out")):
        gain = 2.5
    if any(part in name for part in ("out_proj", "o_proj", "c_proj", "v_proj")):
        gain = 2.5
    if any(part in name for part in ("layers.1.", "h.1.")) and "encoder." not in name:
        gain *= 0.4
    return gain * parameter.shape[-1] ** -0.5


def inputs_of(name: str, seed: int, lengths: list[int] | None = None) -> dict[str, Tensor]:
    """A batch of these lengths: random ids with padding and its mask, or random features, which have no padding."""
    family, lengths = FAMILIES[name], LENGTHS if lengths is None else lengths
    generator = torch.Generator().manual_seed(seed)
    if family.features is not None:
        return {"input_features": torch.randn(len(lengths), *family.features, generator=generator)}
    rows = [torch.randint(3, VOCAB, (length,), generator=generator) for length in lengths]
    return together(rows, left=family.left)


def together(rows: list[Tensor], *, left: bool) -> dict[str, Tensor]:
    """Rows of ids as one padded batch."""
    side = "left" if left else "right"
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return {"input_ids": ids, "attention_mask": mask}


def one_row(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One row of a batch, without its padding."""
    if "input_ids" not in inputs:
        return {name: value[row : row + 1] for name, value in inputs.items()}
    return {"input_ids": inputs["input_ids"][row : row + 1, inputs["attention_mask"][row].bool()]}


def alone(model: Any, inputs: dict[str, Tensor], **fields: Any) -> list[list[int]]:
    """Transformers' own greedy search; Whisper's wrapper around it is tested apart."""
    config = hf.GenerationConfig(**{"max_new_tokens": 12, "do_sample": False, "num_beams": 1, **fields})
    return GenerationMixin.generate(model, **cast(inputs, model), generation_config=config).tolist()


def cast(inputs: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Features in the model's dtype."""
    return {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def prompt_width(name: str, inputs: dict[str, Tensor]) -> int:
    """Tokens that stand before the first written one."""
    return inputs["input_ids"].shape[1] if FAMILIES[name].left else 1
