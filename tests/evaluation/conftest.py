"""A tiny random pair with a real tokenizer, and results made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from omegaconf import OmegaConf
from transformers import T5Config, T5ForConditionalGeneration

import bild
from pipelines.data.task import Task
from pipelines.data.vocabulary import train_tokenizer
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import Pair, describe
from pipelines.evaluation import provenance, results
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.run import Evaluated, describe_task, evaluate

NOUNS = ("Hund", "Katze", "Zug", "Fluss", "Brief", "Garten", "Tisch", "Vogel")
VERBS = ("sieht", "sucht", "findet", "kennt", "malt")
SOURCES = [f"Der {one} {verb} den {other} und den {verb}." for one in NOUNS for verb in VERBS for other in NOUNS]
FIRST_BYTE = 3  # id, after pad, EOS and unknown


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(SOURCES, 320)


def random_model(tokenizer, seed: int, width: int, layers: int) -> T5ForConditionalGeneration:
    """A random T5 whose head is its own and large, so that what it writes varies; it seldom writes bytes."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.shared.weight.mul_(0.2)
        for block in model.decoder.block:
            for name, parameter in block.named_parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3 if "relative" not in name else 20)
        model.lm_head.weight.normal_(std=0.6)
        model.lm_head.weight[FIRST_BYTE : FIRST_BYTE + 256].mul_(0.3)
    return model


@pytest.fixture(scope="session")
def models(tokenizer):
    return {"large": random_model(tokenizer, 0, 32, 2), "small": random_model(tokenizer, 1, 16, 1)}


@pytest.fixture(scope="session")
def pair(models, tokenizer) -> Pair:
    described = {role: describe(model, f"made/{role}", f"{role}: random") for role, model in models.items()}
    return Pair(models["large"], models["small"], tokenizer, described)


@pytest.fixture(scope="session")
def pair_folder(models, tokenizer, tmp_path_factory) -> Path:
    """The same models on disk: {folder}/large and {folder}/small."""
    folder = tmp_path_factory.mktemp("pair")
    for role, model in models.items():
        model.save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder


@pytest.fixture
def overrides(pair_folder, tmp_path) -> list[str]:
    """Command-line arguments for the random pair and six rows of text."""
    rows = [{"source": SOURCES[row], "target": SOURCES[row + 20]} for row in range(6)]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "task.name=made",
        f"task.data_files.test={data}",
        "task.target_length=5",
        *(f"{role}.path={pair_folder / role}" for role in ("large", "small")),
        f"out={tmp_path / 'results'}",
        "latency_limit=2",
        "batch_size=5",
        "bild.fallback=0.1",
    ]


def make_task(metric: str = "bleu", name: str = "made") -> Task:
    return Task(name=name, version=1, metric=metric, origin=None, source_length=32, target_length=8)


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset.from_dict({"source": SOURCES[:10], "target": SOURCES[10:20]})


def run(pair: Pair, task: Task, dataset: Dataset, policy: object, folder: Path, **settings) -> Evaluated:
    chosen = {"batch_size": 4, "latency_limit": 4, "cache": folder / "cache", **settings}
    return evaluate(pair, task, dataset, policy, Decoding(max_new_tokens=8), Settings(**chosen))


def keep(done: Evaluated, task: Task, dataset: Dataset, policy: object, folder: Path) -> results.Result:
    content = {
        "name": results.file_name("test", {"large": "large", "small": "small"}, policy, {}),
        "label": results.policy_label(policy),
        "task": describe_task(task, dataset, "test", None),
        **done.content,
        "provenance": provenance.collect(OmegaConf.create({"split": "test"})),
    }
    return results.write(content, done.rows, folder / task.name)


@pytest.fixture(scope="session")
def sweep(pair, dataset, tmp_path_factory) -> list[results.Result]:
    """Results of four policies on the random pair."""
    folder, task = tmp_path_factory.mktemp("sweep"), make_task()
    policies = [bild.BigLittle(fallback=f, rollback=r) for f in (0.1, 0.9) for r in (0.5, float("inf"))]
    return [keep(run(pair, task, dataset, policy, folder), task, dataset, policy, folder) for policy in policies]


def stats(**counts: int) -> bild.RowStats:
    """RowStats with zeros where nothing is given."""
    zeros = asdict(bild.RowStats(0, 0, 0, 0, 0, 0, 0, 0))
    return bild.RowStats(**{**zeros, **counts})


def token(token_id: int, reason: str, confidence: float = 0.5, round_: int = 0) -> bild.TokenTrace:
    model = "small" if reason in ("draft", "discarded") else "large"
    return bild.TokenTrace(token_id, model, round_, confidence, reason)
