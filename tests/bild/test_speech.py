"""Whisper: features in, and instructions as the first tokens. Its own ``generate`` is the oracle."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

import bild
from tests.bild.families import EOS, alone, family_pair, inputs_of, make

EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.0, draft_length=4)
SPEECH = {
    "lang_to_id": {"<|en|>": 5, "<|de|>": 6}, "task_to_id": {"transcribe": 7, "translate": 8},
    "no_timestamps_token_id": 9, "is_multilingual": True, "suppress_tokens": [10, 11], "prev_sot_token_id": 13,
    "begin_suppress_tokens": [EOS, 12],
}  # fmt: skip


def speech_pair(**fields):
    large = make("whisper", 2, 0)
    small = make("whisper", 1, 1000, like=large)
    for model in (large, small):
        for name, value in {**SPEECH, **fields}.items():
            setattr(model.generation_config, name, value)
    return large, small


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"language": "de", "task": "translate"}, {"language": "<|en|>"}, {"task": "transcribe"},
        {"language": ["de", "en", "de", "en"]}, {"forced_decoder_ids": [[1, None], [2, 7]]},
        {"forced_decoder_ids": [[1, 6], [2, 8], [3, 9]]},
        {"forced_decoder_ids": [[1, 5], [2, 7]], "language": "de", "task": "translate"},
    ],
    ids=str,
)  # fmt: skip
def test_whisper_begins_and_goes_on_as_in_its_own_generate(fields):
    large, small = speech_pair(**fields)
    features = inputs_of("whisper", 0)["input_features"]
    expected = large.generate(
        features.double(), max_new_tokens=9, do_sample=False, force_unique_generate_call=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    out = bild.generate(large, small, input_features=features, policy=EXACT, max_new_tokens=9)
    assert out.sequences.tolist() == expected.sequences.tolist()
    assert out.sequences.shape[1] > 3


def test_continuous_batches_of_speech_need_to_know_the_language():
    large, small = speech_pair(language="de", task="transcribe")
    features = inputs_of("whisper", 0)["input_features"]
    rows = [{"input_features": features[row : row + 1]} for row in range(len(features))]
    together = bild.generate(large, small, input_features=features, policy=EXACT, max_new_tokens=9).sequences
    for index, out in bild.generate_many(large, small, rows, policy=EXACT, max_new_tokens=9, batch_size=2):
        length = out.sequences.shape[1]
        assert out.sequences[0].equal(together[index, :length])
    large.generation_config.language = None
    with pytest.raises(ValueError, match=r"language: set generation_config\.language"):
        next(bild.generate_many(large, small, rows, policy=EXACT))


@pytest.mark.parametrize("timestamps", [False, True])
def test_whispers_own_generate_takes_the_pair(timestamps):
    large, small = speech_pair(language="de", task="transcribe")
    features = inputs_of("whisper", 0)["input_features"].double()
    common = {"max_new_tokens": 9, "do_sample": False, "return_timestamps": timestamps}
    pair = large.generate(features, custom_generate=bild.custom_generate, small=small, policy=EXACT, **common)
    assert pair.tolist() == large.generate(features, **common).tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language": "fr"}, "language='fr' is not in generation_config.lang_to_id; use a code"),
        ({"language": ["de", "en"]}, "names 2 languages for 4 rows"),
        ({"task": "sing"}, r"task='sing' is not in .*task_to_id; use one of \['transcribe', 'translate'\]"),
        ({"forced_decoder_ids": [[2, 7]]}, "must give an id for every position from 1 on"),
        ({"return_timestamps": True}, "return_timestamps=True .* custom_generate=bild.custom_generate"),
    ],
)
def test_bad_instructions(fields, message):
    large, small = speech_pair()
    config = GenerationConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        bild.generate(large, small, **inputs_of("whisper", 0), policy=EXACT, max_new_tokens=3, generation_config=config)


def test_features_are_cast_to_each_models_dtype():
    large, _ = family_pair("whisper")
    half = make("whisper", 1, 7).to(torch.bfloat16)
    features = inputs_of("whisper", 0)["input_features"].half()
    out = bild.generate(large, half, input_features=features, policy=EXACT, max_new_tokens=9)
    assert out.sequences.tolist() == alone(large, {"input_features": features}, max_new_tokens=9)
