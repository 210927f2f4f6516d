"""A trained pair against its peers: as it is, or inflated; one sentence at a time, or in batches of growing size."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import bild
from benchmarks import peer_ctranslate2, texts
from benchmarks.clock import no_garbage_collection
from benchmarks.errors import UserError
from benchmarks.inflate import inflate
from benchmarks.machine import package_version, say
from benchmarks.methods import BASELINE, Batch, Method, pad
from benchmarks.outcome import Outcome
from benchmarks.own import BildMethod
from benchmarks.peer_transformers import TransformersAssisted, TransformersGenerate
from benchmarks.shapes import shape_of
from benchmarks.timing import take_turns

LOOKUP_TOKENS = 10


@dataclass(frozen=True)
class Pair:
    """Two models on their device, the tokenizer that they share, and what to decode."""

    large: PreTrainedModel
    small: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: list[texts.Text]
    sources: list[list[int]]
    description: dict[str, Any]

    def batches(self, size: int) -> list[Batch]:
        """The sources in their order, so many at a time."""
        pad_id, device = self.large.config.pad_token_id, self.large.device
        return [pad(self.sources[first : first + size], pad_id, device) for first in range(0, len(self.sources), size)]


def load(options: argparse.Namespace) -> Pair:
    """Both models, inflated where the options give shapes, and the rows of the data. Raises UserError."""
    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype)
    models, notes = [], {}
    for role in ("large", "small"):
        folder, shape = Path(getattr(options, role)), getattr(options, f"{role}_shape")
        model = load_model(folder, f"--{role}")
        trained = shape_of(model)
        if shape is not None:
            say(f"inflating {folder}")
            model = inflate(model, shape)
        models.append(model.to(device, dtype))
        notes[role] = {
            "path": str(folder),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "shape": shape_of(model),
            "inflated_from": None if shape is None else trained,
        }
    tokenizer = load_tokenizer(Path(options.large if options.tokenizer is None else options.tokenizer))
    rows = texts.read_texts(Path(options.data), options.source, options.target, options.limit)
    sources = tokenizer(
        [options.prefix + row.source for row in rows], truncation=True, max_length=options.source_length
    ).input_ids
    data = {
        "path": str(options.data),
        "rows": len(rows),
        "sha256": texts.fingerprint(rows),
        "mean_source_tokens": sum(map(len, sources)) / len(sources),
    }
    return Pair(models[0], models[1], tokenizer, rows, sources, {**notes, "data": data})


def load_model(folder: Path, option: str) -> PreTrainedModel:
    """In float32, ready to decode. Raises UserError."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{option} {folder}: no config.json there; give the folder of a model in transformers' format")
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises UserError."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder}: no tokenizer.json there; give the tokenizer's folder as --tokenizer")
    return AutoTokenizer.from_pretrained(folder)


def build_methods(pair: Pair, options: argparse.Namespace, *, alone: bool) -> tuple[list[Method], list[dict[str, str]]]:
    """The contestants, the baseline first, and who was left out and why. ``alone``: with the small model alone."""
    methods: list[Method] = [TransformersGenerate(BASELINE, pair.large)]
    skipped = []
    if "assisted" in options.peers:
        methods.append(TransformersAssisted("transformers assisted", pair.large, pair.small))
        if package_version("scikit-learn") is None:
            skipped.append({"name": "adaptive threshold of transformers assisted", "reason": "needs scikit-learn"})
    if "lookup" in options.peers:
        name = "transformers prompt lookup"
        methods.append(TransformersGenerate(name, pair.large, prompt_lookup_num_tokens=LOOKUP_TOKENS))
    others, absent = peer_ctranslate2.contestants(pair.large, options.peers)
    methods += others
    skipped += absent
    policies = {"large alone": bild.LargeOnly(), "small alone": bild.SmallOnly()}
    if not alone:
        del policies["small alone"]
    policies |= dict(options.policies)
    for engine in options.engines:
        methods += [BildMethod(label, policy, engine, pair.large, pair.small) for label, policy in policies.items()]
    return methods, skipped


def run_pair(options: argparse.Namespace, _bandwidth: float) -> dict[str, Any]:
    """One sentence at a time: what every method costs, and what its output is worth."""
    pair = load(options)
    methods, skipped = build_methods(pair, options, alone=True)
    batches = pair.batches(1)
    outputs, times = take_turns(methods, batches, max_new_tokens=options.max_new_tokens, runs=options.runs, say=say)
    outcome = Outcome(methods, batches, outputs, times)
    entries = [outcome.entry(method, pair.large, pair.texts, pair.tokenizer) for method in methods]
    few = batches[: options.profile_rows]
    with no_garbage_collection():
        for method, entry in zip(methods, entries, strict=True):
            if isinstance(method, BildMethod):
                entry["outside_models"] = method.share_outside_models(few, options.max_new_tokens)
    return {**pair.description, "baseline": BASELINE, "skipped": skipped, "methods": entries}
