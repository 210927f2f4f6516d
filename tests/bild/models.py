"""Tiny random T5 models and pairs of them. The weights are scaled so that one run drafts, rolls back and falls back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

import bild

PAD = START = 0
EOS = 1
VOCAB = 24

KINDS = [
    bild.Speculative(draft_length=4),
    bild.Speculative(draft_length=3, lenience=0.3, beta="normalized", adaptive=True),
    bild.SpeculativeCascade(rule="opt", alpha=0.3, draft_length=3),
    bild.SpeculativeCascade(rule="token_v1", alpha=0.3, draft_length=3, bonus="large", adaptive=True),
    bild.TokenCascade(alpha=0.6, draft_length=3),
    bild.SequenceCascade(threshold=-0.8),
    bild.SequenceCascade(threshold=-1.0, quantile=0.3),
    bild.OracleDiff(alpha=0.05),
    bild.OracleMixing(threshold=0.1),
]
"""Policies of every kind, beside Big Little and one model alone."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's dtype of what is made without one, within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def tiny_t5(
    seed: int,
    *,
    layers: int = 2,
    decoder_layers: int | None = None,
    width: int = 16,
    vocab: int = VOCAB,
    gated: bool = False,
    tied: bool = False,
    eos: int | list[int] = EOS,
    like: nn.Module | None = None,
    dtype: torch.dtype = torch.float64,
) -> T5ForConditionalGeneration:
    """A random model, the same for the same arguments. With ``like``, its parameters of the same name and shape, only
    slightly disturbed, so that the two often agree."""
    config = T5Config(
        vocab_size=vocab,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=layers,
        num_decoder_layers=decoder_layers,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=0.1,
        feed_forward_proj="gated-gelu" if gated else "relu",
        decoder_start_token_id=START,
        pad_token_id=PAD,
        eos_token_id=eos,
    )
    with torch.random.fork_rng():
        model = T5ForConditionalGeneration(config).to(dtype).eval()
    if not tied:
        # transformers 5 ties every T5 at first; a head of its own needs a scale, or the model writes only zeros.
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False
        model.config.scale_decoder_outputs = False
    _fill(model, torch.Generator().manual_seed(seed), {} if like is None else dict(like.named_parameters()))
    return model


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator, base: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        noise = noise * _scale(name, parameter.shape[-1])
        twin = base.get(name)
        parameter.copy_(noise if twin is None or twin.shape != noise.shape else twin + 0.1 * noise)


def _scale(name: str, fan_in: int) -> float:
    """Standard deviation of the weights: peaked heads, sources and prefixes that matter, upper layers that correct."""
    if "shared" in name:
        return 0.3
    if "relative_attention_bias" in name:
        return 1.0
    gain = 3.0 if "lm_head" in name else 1.5
    if "Attention.o" in name:
        gain *= 2.5
    if "block.1" in name:
        gain *= 0.4
    return gain * fan_in**-0.5


@lru_cache
def pair(seed: int = 0) -> tuple[T5ForConditionalGeneration, T5ForConditionalGeneration]:
    """A large model of two layers and a small one that is its first layer, disturbed. Do not change them."""
    large = tiny_t5(seed)
    return large, tiny_t5(seed + 1000, layers=1, like=large)


LENGTHS = [6, 1, 4, 2]
"""of the sources of ``assert_a_batch_is_its_rows``"""


def assert_a_batch_is_its_rows(**keywords: Any) -> None:
    """What ``bild.generate`` samples for several sources at once is what it samples for each alone: text and counts."""
    large, small = pair(3)
    ids, mask = sources(3, LENGTHS)
    keywords = {"do_sample": True, **keywords}
    together = bild.generate(large, small, ids, attention_mask=mask, generator=streams(range(4)), **keywords)
    for row, length in enumerate(LENGTHS):
        alone = bild.generate(large, small, ids[row : row + 1, :length], generator=streams([row]), **keywords)
        written = alone.sequences[0].tolist()
        assert together.sequences[row, : len(written)].tolist() == written
        assert together.stats[row] == alone.stats[0]


def streams(seeds: Iterable[int]) -> list[torch.Generator]:
    """A random stream for each row."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def sources(seed: int, lengths: Sequence[int], vocab: int = VOCAB, ids: int = 2) -> tuple[Tensor, Tensor]:
    """Random sources of these lengths as padded (B, S) ids (from ``ids`` on) and attention mask."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(ids, vocab, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
    return tokens.masked_fill(~mask, PAD), mask.long()


@torch.no_grad()
def read_by_transformers(dtype: torch.dtype) -> tuple[T5ForConditionalGeneration, dict[str, Any], Tensor, Tensor]:
    """A gated T5 in this precision, two sources as a runner is prefilled with them, (2, 6) tokens, and the logits
    (2, 6, V), as float32, that transformers' forward has for them."""
    model = tiny_t5(2, width=64, vocab=500, gated=True, dtype=torch.float32).to(dtype)
    if dtype == torch.float16:
        for block in model.decoder.block:  # as transformers loads float16 models
            block.layer[2].DenseReluDense.wo.float()
    ids, mask = sources(4, [40, 17], vocab=500)
    tokens = torch.randint(2, 500, (2, 6), generator=torch.Generator().manual_seed(0))
    inputs = {"encoder_outputs": model.get_encoder()(input_ids=ids, attention_mask=mask), "attention_mask": mask}
    return model, inputs, tokens, model(**inputs, decoder_input_ids=tokens).logits.float()
