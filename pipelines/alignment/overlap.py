"""How alike two models are, without any threshold: their next-token distributions on the same given outputs.

Knows two models and token ids; knows nothing about decoding, files or tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from bild.tensors import fit_vocabulary

BUDGET = 2**27  # logits held at once per model (512 MB in float32)


@torch.inference_mode()
def overlap(
    large: PreTrainedModel,
    small: PreTrainedModel,
    inputs: Sequence[list[int]],
    outputs: Sequence[list[int]],
    pad: Callable[[list[list[int]]], tuple[Tensor, Tensor]],
    batch_size: int,
    label: str = "likeness",
) -> np.ndarray:
    """Teacher-forced likeness on the large model's own outputs, without the logits processors of either model.

    Args:
        inputs: N rows of encoder token ids.
        outputs: N rows of written token ids, EOS included, without the decoder start token.
        pad: rows of token ids to (B, T) ids and (B, T) mask on the models' device.
        batch_size: rows at a time, fewer where outputs are long or vocabularies large.
        label: of the progress bar.

    Returns:
        (N, 3) float64: the sum over the row's positions of sum_v min(p(v), q(v)), the number of positions at which
        both models would choose the same token, and the number of positions. The first over the third is Leviathan's
        alpha (E sum min(p, q), temperature 1), the second over the third its greedy counterpart.
    """
    result = np.zeros((len(inputs), 3))
    longest = max(map(len, outputs))
    rows_at_once = max(1, min(batch_size, BUDGET // (longest * large.config.vocab_size)))
    order = sorted(range(len(inputs)), key=lambda row: -len(inputs[row]))
    for start in tqdm(range(0, len(order), rows_at_once), desc=f"{label}: likeness", unit="batch", leave=False):
        rows = order[start : start + rows_at_once]
        tokens, mask = pad([outputs[row] for row in rows])
        encoder = pad([inputs[row] for row in rows])
        large_logits, small_logits = (_logits(model, *encoder, tokens) for model in (large, small))
        result[rows] = _compare(large_logits, small_logits, mask).cpu().numpy()
    return result


def _logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, tokens: Tensor) -> Tensor:
    """Logits (B, T, V) of the position of each token, given the ones before it."""
    start = torch.full_like(tokens[:, :1], model.generation_config.decoder_start_token_id)
    before = torch.cat([start, tokens[:, :-1]], dim=1)
    return model(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=before, use_cache=False).logits


def _compare(large_logits: Tensor, small_logits: Tensor, mask: Tensor) -> Tensor:
    """(B, 3) float64 as in ``overlap``. Of heads of different width the large one's decides, as in the round loop."""
    small_logits = fit_vocabulary(small_logits, large_logits.shape[-1])
    large_probs, small_probs = (torch.softmax(logits.float(), dim=-1) for logits in (large_logits, small_logits))
    common = torch.minimum(large_probs, small_probs).sum(-1)
    same = large_probs.argmax(-1) == small_probs.argmax(-1)
    counts = torch.stack([common, same, torch.ones_like(common)], dim=-1).double()
    return (counts * mask[..., None]).sum(1)
