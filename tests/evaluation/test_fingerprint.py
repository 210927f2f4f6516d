"""The key of decoded texts changes with everything that may change a text, and with nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

import bild
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import pair_key
from pipelines.models import fingerprint

POLICY = bild.BigLittle(fallback=0.5)
DECODING = Decoding(max_new_tokens=8)
INPUTS = [[5, 6, 1], [7, 1]]
BATCH = 8


def test_a_model_is_its_weights_and_not_its_path(models, pair_folder):
    again = AutoModelForSeq2SeqLM.from_pretrained(pair_folder / "large").eval()
    assert fingerprint.model_hash(again) == fingerprint.model_hash(models["large"])


@pytest.mark.parametrize("change", ["one weight", "dtype", "special id"])
def test_another_model_has_another_hash(models, change):
    other = copy.deepcopy(models["small"])
    if change == "one weight":
        with torch.no_grad():
            other.decoder.block[0].layer[0].SelfAttention.q.weight[0, 0] += 1e-3
    elif change == "dtype":
        other = other.to(torch.bfloat16)
    else:
        other.generation_config.eos_token_id = 2
    assert fingerprint.model_hash(other) != fingerprint.model_hash(models["small"])


@pytest.mark.parametrize(
    ("policy", "inputs", "decoding", "batch_size"),
    [
        (bild.BigLittle(fallback=0.6), INPUTS, DECODING, BATCH),
        (bild.LargeOnly(), INPUTS, DECODING, BATCH),
        (POLICY, [[5, 6, 1], [8, 1]], DECODING, BATCH),
        (POLICY, [[7, 1], [5, 6, 1]], DECODING, BATCH),
        (POLICY, INPUTS, replace(DECODING, max_new_tokens=9), BATCH),
        (POLICY, INPUTS, replace(DECODING, do_sample=True), BATCH),
        (POLICY, INPUTS, replace(DECODING, engine="hf"), BATCH),
        (POLICY, INPUTS, DECODING, 2 * BATCH),
    ],
)
def test_another_decoding_has_another_key(pair, policy, inputs, decoding, batch_size):
    assert pair_key(pair, policy, inputs, decoding, batch_size) != pair_key(pair, POLICY, INPUTS, DECODING, BATCH)


def test_a_baseline_keeps_its_key_when_the_other_model_changes(pair):
    described = {**pair.described, "small": replace(pair.described["small"], weights="others")}
    other = replace(pair, described=described)
    large, small = bild.LargeOnly(), bild.SmallOnly()
    assert pair_key(other, large, INPUTS, DECODING, BATCH) == pair_key(pair, large, INPUTS, DECODING, BATCH)
    assert pair_key(other, small, INPUTS, DECODING, BATCH) != pair_key(pair, small, INPUTS, DECODING, BATCH)
    assert pair_key(other, POLICY, INPUTS, DECODING, BATCH) != pair_key(pair, POLICY, INPUTS, DECODING, BATCH)


def test_another_decoder_has_another_key(pair, monkeypatch):
    before = pair_key(pair, POLICY, INPUTS, DECODING, BATCH)
    monkeypatch.setattr(fingerprint, "code_hash", lambda: "changed")
    assert pair_key(pair, POLICY, INPUTS, DECODING, BATCH) != before
