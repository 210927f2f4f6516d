"""How much memory a decoder step of a T5 or mT5 must read, whatever computes it."""

from __future__ import annotations

from transformers import PreTrainedModel

SCALE_BYTES = 4
"""one float32 scale per output channel of an 8-bit matrix"""


def step_bytes(model: PreTrainedModel, *, int8: bool, source: int, length: int) -> int:
    """Bytes of weights and caches that one step at batch 1 reads with ``source`` encoder positions and ``length``
    tokens before it. Each is read once; the embedding's row, the position bias and activations are left out."""
    config = model.config
    itemsize = model.dtype.itemsize
    weights = [
        weight
        for name, weight in model.decoder.named_parameters()
        # The source's keys and values are computed once for all steps; of the embedding a step reads a row.
        if not name.endswith(("EncDecAttention.k.weight", "EncDecAttention.v.weight", "embed_tokens.weight"))
        and "relative_attention_bias" not in name
    ]
    total = 0
    for weight in (*weights, model.get_output_embeddings().weight):
        if int8 and weight.dim() == 2:
            total += weight.numel() + SCALE_BYTES * weight.shape[0]
        else:
            total += weight.numel() * weight.element_size()
    positions = source + length
    return total + 2 * config.num_decoder_layers * positions * config.num_heads * config.d_kv * itemsize
