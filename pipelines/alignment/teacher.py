"""The large model as a teacher: a decode function for the shards, and what identifies its outputs.

Knows models, tokenizers and bild.generate; knows nothing about files or training.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import bild
from pipelines.alignment.outputs import Decode
from pipelines.cli import UserError


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the large model writes; every field changes the outputs."""

    generation_max_length: int  # tokens, EOS included
    temperature: float  # 0 = greedy
    samples: int  # outputs per input
    seed: int  # of the sampling; greedy outputs do not depend on it

    def __post_init__(self) -> None:
        if self.generation_max_length < 1:
            raise UserError(f"align.generation_max_length={self.generation_max_length}: needs at least 1 token")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"align.temperature={self.temperature}: needs a number from 0 (greedy) up")
        if self.samples < 1:
            raise UserError(f"align.samples={self.samples}: needs at least 1 output per input")
        if self.samples > 1 and self.temperature == 0:
            raise UserError(
                f"align.samples={self.samples} with align.temperature=0 would repeat the greedy output; "
                "set align.temperature=1, or align.samples=1"
            )

    def identity(self) -> dict[str, Any]:
        """The settings under the names that the user gives them; the seed only where something is drawn."""
        keys = {
            "align.generation_max_length": self.generation_max_length,
            "align.temperature": float(self.temperature),
            "align.samples": self.samples,
        }
        return {**keys, "seed": self.seed} if self.temperature > 0 else keys


def large_decoder(model: PreTrainedModel, decoding: Decoding, pad_token_id: int, engine: str) -> Decode:
    """A function that lets the large model answer a batch of encoded inputs, each row with its own random stream."""
    sampling = decoding.temperature > 0

    def decode(inputs: list[list[int]], seeds: list[int]) -> list[list[int]]:
        input_ids, attention_mask = pad(inputs, pad_token_id, model.device)
        out = bild.generate(
            model,
            None,
            input_ids,
            attention_mask=attention_mask,
            policy=bild.LargeOnly(),
            max_new_tokens=decoding.generation_max_length,
            do_sample=sampling,
            temperature=decoding.temperature if sampling else 1.0,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds] if sampling else None,
            engine=engine,
        )
        return [row[1 : 1 + stats.tokens] for row, stats in zip(out.sequences.tolist(), out.stats, strict=True)]

    return decode


def pad(rows: list[list[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) int64, padded on the right, and their mask (B, T) int64."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(device), mask.to(device)


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of every tensor of the model as it is in memory: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def generation_fields(model: PreTrainedModel) -> str:
    """The fields of the model's generation config that its outputs may depend on, as JSON."""
    fields = model.generation_config.to_diff_dict()
    return json.dumps({key: value for key, value in sorted(fields.items()) if key != "transformers_version"})


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The ids that end an output."""
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def check_same_tokenizer(large: PreTrainedTokenizerBase, small: PreTrainedTokenizerBase, names: tuple[str, str]) -> None:
    """Raise UserError, naming the difference, unless both tokenizers turn the same text into the same ids."""
    difference = None
    if large.get_vocab() != small.get_vocab():
        difference = f"their vocabularies differ ({len(large)} and {len(small)} tokens)"
    for special in ("eos_token_id", "pad_token_id"):
        if getattr(large, special) != getattr(small, special):
            difference = f"{special} is {getattr(large, special)} and {getattr(small, special)}"
    if difference:
        raise UserError(
            f"{names[0]} (large) and {names[1]} (small) have different tokenizers: {difference}; "
            "the two models must share one vocabulary, choose a pair of one family"
        )
