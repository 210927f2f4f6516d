"""Tiny random decoder-only pairs with tokenizers trained on the spot, and rows of a few-shot task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

NAMES = ("Ann", "Bob", "Eve", "Tom", "Kim", "Max", "Zoe", "Ian")
PLACES = ("Rome", "Oslo", "Bern", "Kyiv", "Riga", "Lima")
ROWS = [
    {"question": f"Where does {name} live since {year}?", "answer": [place, f"in {place}"]}
    for year in (1990, 2005)
    for name, place in zip(NAMES, PLACES * 2, strict=False)
]
TEXTS = [f"Question: {row['question']}\nAnswer: {row['answer'][1]}\n\n" for row in ROWS]
END = "<|endoftext|>"
WIDTH = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def byte_level(start: str | None = None, size: int = 400) -> PreTrainedTokenizerFast:
    """A tokenizer as GPT-2's: bytes, no pad token, and nothing at the ends unless there is a ``start``."""
    special = [END] if start is None else [END, start]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if start is not None:
        tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A", special_tokens=[(start, 1)])
    names = {"eos_token": END} if start is None else {"eos_token": END, "bos_token": start, "pad_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def causal(family: str, tokenizer: PreTrainedTokenizerFast, seed: int, layers: int) -> hf.PreTrainedModel:
    """A random model whose head is large, so that what it writes varies."""
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    made = {
        "gpt2": (
            hf.GPT2LMHeadModel,
            lambda: hf.GPT2Config(n_embd=32, n_head=4, n_layer=layers, n_positions=320, **ids),
        ),
        "llama": (hf.LlamaForCausalLM, lambda: hf.LlamaConfig(num_hidden_layers=layers, **WIDTH, **ids)),
        "gemma2": (
            hf.Gemma2ForCausalLM,
            lambda: hf.Gemma2Config(num_hidden_layers=layers, sliding_window=16, pad_token_id=0, **WIDTH, **ids),
        ),
    }
    torch.manual_seed(seed)
    kind, config = made[family]
    model = kind(config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name and "wte" not in name and "wpe" not in name:
                parameter.normal_(std=2.5 * parameter.shape[-1] ** -0.5)
    return model


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {"gpt2": byte_level(), "llama": byte_level("<s>"), "gemma2": byte_level("<bos>")}


@pytest.fixture(scope="session")
def folders(tokenizers, tmp_path_factory) -> dict[str, Path]:
    """By family a folder with ``large`` and ``small`` on disk."""
    found = {}
    for family, tokenizer in tokenizers.items():
        found[family] = tmp_path_factory.mktemp(family)
        for seed, (role, layers) in enumerate((("large", 2), ("small", 1))):
            causal(family, tokenizer, seed, layers).save_pretrained(found[family] / role)
            tokenizer.save_pretrained(found[family] / role)
    return found


@pytest.fixture
def overrides(tmp_path):
    """Command-line arguments for a pair of a folder and a few-shot task: nine rows for examples, seven to ask."""

    def of(folder: Path) -> list[str]:
        data = {"train": ROWS[:9], "test": ROWS[9:]}
        for split, rows in data.items():
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = ", ".join(f"{split}: {tmp_path / f'{split}.jsonl'}" for split in data)
        return [
            "task=nq_open",
            f"task.data_files={{{files}}}",
            "task.prompt.shots=2",
            *(f"{role}.path={folder / role}" for role in ("large", "small")),
            "large=path",
            "small=path",
        ]

    return of
