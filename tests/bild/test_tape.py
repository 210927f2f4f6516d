"""The tape that stands for a CUDA graph refuses what a capture refuses; and what is recorded stays on the device."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    T5Config,
    T5ForConditionalGeneration,
)

import bild
from bild import drafter
from bild.engine.runner import Asked
from bild.engine.t5 import graphs
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.fixed import FixedCaches, Head
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
        tokens, uniforms = torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 4)
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
