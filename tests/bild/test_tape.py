"""The tape that stands for a CUDA graph refuses what a capture refuses; and what is recorded stays on the device."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

import bild
from bild import drafter
from bild.engine.runner import Asked
from bild.engine.t5 import graphs, layers
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.encoder import T5Encoder
from bild.engine.t5.fixed import FixedCaches, Head
from bild.engine.t5.state import Caches
from bild.sampling import Sampler
from tests.bild.models import VOCAB
from tests.bild.tape import Tape


class Touched(TorchDispatchMode):
    """Where the tensors of every operation are."""

    def __init__(self):
        super().__init__()
        self.devices, self.count = set(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **({} if kwargs is None else kwargs))
        self.devices |= {
            one.device.type for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor)
        }
        self.count += 1
        return result


class RecordedError(Exception):
    """As far as a device without memory can go."""


@dataclass
class Watching:
    touched: Touched

    def capture(self, work):
        with self.touched:
            work()
        raise RecordedError


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_recording_touches_the_device_alone(dtype):
    """On a device that computes nothing: a tensor of the host among the operations would be a copy at every replay."""
    config = T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    with torch.device("meta"):
        decoder = T5Decoder(T5ForConditionalGeneration(config).eval().to(dtype), int8=False)
        uniforms = torch.zeros(3, 4)
    tokens = torch.zeros(3, 2, dtype=torch.long)
    head = Head(decoder.head(None), None, VOCAB)
    sampler = Sampler(do_sample=True, temperature=0.7, top_k=5, top_p=0.9)
    asked = Asked(4, 0, uniforms, drafter.Chooser(bild.BigLittle().stop_rule, sampler, VOCAB + 3))
    touched = Touched()
    caches = FixedCaches(decoder, graphs.Size.of(3, 20, 9, decoder.all_layers), Watching(touched))
    with pytest.raises(RecordedError):
        caches.extend(tokens, [0, 1, 2], head)
    with pytest.raises(RecordedError):
        caches.draft(tokens, [0, 1, 2], [1, 2, 0], asked, head)
    assert touched.devices == {"meta"}
    assert touched.count > 500


# The tape itself


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.add_(torch.tensor([1.0, 2.0])),
        lambda x: x.cpu(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
    ],
)
def test_the_tape_refuses_what_a_capture_refuses(work):
    with pytest.raises(RuntimeError):
        Tape().capture(lambda: work(torch.ones(2)))


def test_the_tape_replays_tensors_and_bakes_numbers_in():
    tape, x, factor, out = Tape(), torch.ones(2), [3.0], torch.zeros(2)
    replay = tape.capture(lambda: out.copy_((x * factor[0]).view(1, 2)[0].add_(1)))
    assert out.tolist() == [4, 4]
    x.fill_(2)
    factor[0] = 5.0
    replay()
    assert out.tolist() == [7, 7]


# What a GPU is asked in place of what a processor is


@dataclass
class Attention(TorchDispatchMode):
    """The kernels that attention is left to, and whether a GPU's kernel can read what it is given."""

    def __post_init__(self):
        super().__init__()
        self.kernels, self.refused = [], []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation._schema.name
        if "scaled_dot_product" in name:
            self.kernels.append(name)
            query, keys, values, bias = args[:4]
            sizes = (*query.shape[:3], keys.shape[2])
            fits = all(one.stride(-1) == 1 for one in (query, keys, values)) and query.shape[-1] % 8 == 0
            if bias is not None:
                fits &= bias.shape == sizes and bias.dtype == query.dtype and bias.stride(-1) == 1
                fits &= all(stride % 8 == 0 for stride in bias.stride()[:-1])
            if not fits:
                self.refused.append((tuple(query.shape), None if bias is None else (bias.shape, bias.stride())))
        return operation(*args, **({} if kwargs is None else kwargs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_on_a_gpu_attention_is_one_kernel_that_can_read_its_bias(monkeypatch, dtype):
    """Of any length: torch's own choice would be made anew, and plans with it, for every one."""
    monkeypatch.setattr(layers, "on_gpu", lambda values: values.device.type == "meta")
    with torch.device("meta"):
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        )
        model = model.eval().to(dtype)
        encoder = T5Encoder(model.encoder, model.shared.weight.detach(), int8=False)
        decoder = T5Decoder(model, int8=False)
        seen = Attention()
        with seen, torch.no_grad():
            state = Caches(decoder, 13)
            state._number_slots(3)
            state._caches, state._sources = (
                [torch.zeros(3, 13, 32, dtype=dtype)] * 2,
                [[torch.zeros(3, 2, 5, 8, dtype=dtype)] * 2] * 2,
            )
            state._source_bias = layers.aligned(torch.zeros(3, 1, 1, 5, dtype=dtype))
            for width, reach in ((1, 1), (1, 7), (3, 11), (2, 13)):
                step = state.at(
                    torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long), None, reach
                )
                state.run(state.embed(step), step, decoder.all_layers)
            for width in (1, 5, 16):
                encoder(torch.zeros(3, width, dtype=torch.long), None)
    assert len(seen.kernels) == 4 * 2 * 2 + 3 * 2
    assert set(seen.kernels) == {"aten::_scaled_dot_product_efficient_attention"}
    assert seen.refused == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_gpus_norm_is_that_of_transformers(monkeypatch, dtype):
    torch.manual_seed(0)
    module = T5LayerNorm(16, eps=1e-6).to(dtype)
    module.weight.data = torch.rand(16).to(dtype)
    norm = layers.Norm(module)
    monkeypatch.setattr(layers, "on_gpu", lambda values: True)
    for hidden in (torch.randn(5, 16).to(dtype), torch.randn(5, 16)):  # float16 models have states in float32 too
        found, expected = norm(hidden), module(hidden).detach()
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found.float(), expected.float(), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
