"""Shapes are those of the published models; a shape of one's own is read or refused."""

import pytest
import torch

from benchmarks.errors import UserError
from benchmarks.roofline import step_bytes
from benchmarks.shapes import PAPER, parse_shape, random_model, shape_of, thin

OWN = "mt5:d_model=32,d_kv=8,d_ff=48,num_heads=2,num_layers=2,vocab_size=60"
# As on the hub.
PARAMETERS = {"t5-small": 60506624, "t5-large": 737668096, "mt5-small": 300176768, "mt5-large": 1229581312}


@pytest.mark.parametrize("name", PAPER)
def test_published_sizes(name: str) -> None:
    model = random_model(PAPER[name], torch.float32, torch.device("meta"))
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[name]


def test_own_shape() -> None:
    shape = parse_shape(OWN)
    assert shape["num_decoder_layers"] == 2
    assert shape_of(random_model(shape, torch.float32, torch.device("cpu"))) == shape
    assert parse_shape(f"{OWN},num_decoder_layers=1")["num_decoder_layers"] == 1


@pytest.mark.parametrize("text", ["t5-huge", "t5:", "bart:d_model=8", OWN.replace("48", "0"), f"{OWN},d_mode=3"])
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="t5-small"):
        parse_shape(text)


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_transformers_decodes_a_decoder_deeper_than_its_encoder(family: str) -> None:
    shape = parse_shape(f"{OWN},num_decoder_layers=3".replace("mt5", family))
    model = random_model(shape, torch.float32, torch.device("cpu"))
    assert model.generate(torch.full((1, 3), 5), max_new_tokens=4).shape[1] == 5


def test_random_models_write_on() -> None:
    model = random_model(parse_shape(OWN), torch.float32, torch.device("cpu"))
    assert model.generation_config.eos_token_id is None
    assert model.generate(torch.full((1, 3), 5), max_new_tokens=12).shape[1] == 13
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    again = random_model(parse_shape(OWN), torch.float32, torch.device("cpu"))
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)


def test_a_thin_shape_is_as_deep() -> None:
    assert thin(PAPER["t5-large"])["num_decoder_layers"] == 24


def test_bytes_of_a_step() -> None:
    """Counted by hand: per layer four matrices of self-attention, two of cross-attention, two of feed-forward, three
    norms; the last norm and the head; keys and values of 7 source positions and 5 tokens, twice."""
    width, inner, wide, vocab = 32, 16, 48, 60
    shape = parse_shape(OWN.replace("mt5", "t5").replace("num_layers=2", "num_layers=3,num_decoder_layers=2"))
    matrices = 2 * (6 * width * inner + 2 * width * wide) + vocab * width
    channels = 2 * (3 * inner + width + inner + width + wide + width) + vocab
    norms, caches = 7 * width, 2 * 2 * (7 + 5) * inner
    model = random_model(shape, torch.float32, torch.device("cpu"))
    assert step_bytes(model, int8=False, source=7, length=5) == 4 * (matrices + norms + caches)
    assert step_bytes(model, int8=True, source=7, length=5) == matrices + 4 * (channels + norms + caches)
    half = random_model(shape, torch.bfloat16, torch.device("cpu"))
    assert step_bytes(half, int8=False, source=7, length=5) == 2 * (matrices + norms + caches)
