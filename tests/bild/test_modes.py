"""Decoding runs in inference mode, where operators start faster, and nothing of it leaks to the caller."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

import bild
from tests.bild.models import pair

SOURCE = torch.tensor([[5, 9, 3, 1]])
ENGINES = ["static", "hf"]


class Forbids(LogitsProcessor):
    """As users write them: in place, with a tensor kept from call to call."""

    def __init__(self) -> None:
        self.modes: list[bool] = []
        self.seen = torch.zeros(1)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.modes.append(torch.is_inference_mode_enabled())
        self.seen += 1
        scores[:, 7] = -torch.inf
        return scores


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_run_in_inference_mode_and_processors_may_write_in_place(engine):
    forbids = Forbids()
    out = bild.generate(
        *pair(3),
        SOURCE,
        policy=bild.BigLittle(),
        max_new_tokens=12,
        engine=engine,
        logits_processor=LogitsProcessorList([forbids]),
    )
    assert forbids.modes
    assert all(forbids.modes)
    assert forbids.seen == len(forbids.modes)
    assert not (out.sequences == 7).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_comes_out_is_an_ordinary_tensor_and_the_models_can_be_trained(engine):
    large, small = pair(3)
    out = bild.generate(large, small, SOURCE, policy=bild.BigLittle(), max_new_tokens=12, engine=engine)
    assert not out.sequences.is_inference()
    out.sequences.zero_()
    for model in (large, small):
        assert not any(weight.is_inference() for weight in (*model.parameters(), *model.buffers()))
        model(input_ids=SOURCE, labels=SOURCE).loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
        model.zero_grad()
