"""Likeness of two models on given outputs: as transformers' own forward says it, whatever the batches."""

import numpy as np
import pytest
import torch

import bild
from pipelines.alignment.overlap import overlap
from pipelines.decoding.decode import BatchDecoder, Decoding
from tests.bild.models import START, tiny_t5
from tests.training.tiny import TOKENIZER

INPUTS = [[5, 9, 7, 1], [4, 1], [8, 8, 3, 6, 2, 1], [11, 12, 1]]


def decoder(large, small) -> BatchDecoder:
    """Its length limit is below that of the outputs, which may have been written with another one."""
    return BatchDecoder(large, small, TOKENIZER, Decoding(max_new_tokens=2))


def greedy_outputs(large) -> list[list[int]]:
    ids, mask = decoder(large, large).pad(INPUTS)
    out = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=9)
    return [row[1 : 1 + stats.tokens] for row, stats in zip(out.sequences.tolist(), out.stats, strict=True)]


@pytest.fixture(scope="module")
def pair():
    large = tiny_t5(34)  # its outputs end at different lengths
    return large, tiny_t5(35, like=large)


def expected(large, small, outputs, suppressed=()) -> np.ndarray:
    """Prefix by prefix, over the large model's vocabulary: what the small one has beyond it is never drafted, and what
    it lacks has no probability."""
    found = np.zeros((len(INPUTS), 3))
    for row, (source, tokens) in enumerate(zip(INPUTS, outputs, strict=True)):
        for position, token in enumerate(tokens):
            before = torch.tensor([[START, *tokens[:position]]])
            with torch.no_grad():
                logits = [
                    model(input_ids=torch.tensor([source]), decoder_input_ids=before).logits[0, -1]
                    for model in (large, small)
                ]
            width = len(logits[0])
            for one in logits:
                one[list(suppressed)] = -torch.inf
            p, q = (one[:width].softmax(-1) for one in logits)
            q = torch.nn.functional.pad(q, (0, width - len(q)))
            # The large model wrote its own best token, so agreeing with it is agreeing with the text.
            found[row] += [float(torch.minimum(p, q).sum()), float(q.argmax() == token), 1]
    return found


def test_a_model_is_fully_like_itself(pair):
    large, _ = pair
    outputs = greedy_outputs(large)
    result = overlap(decoder(large, large), INPUTS, outputs, 2, None, None)
    lengths = [len(row) for row in outputs]
    np.testing.assert_allclose(result, np.array([lengths, lengths, lengths]).T, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_equals_a_prefix_by_prefix_computation(pair, batch_size):
    large, small = pair
    outputs = greedy_outputs(large)
    assert len({len(row) for row in outputs}) > 1, "rows of one length would not show a wrong mask"
    wanted = expected(large, small, outputs)
    found = overlap(decoder(large, small), INPUTS, outputs, batch_size, None, None)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert 0 < wanted[:, 1].sum() < wanted[:, 2].sum(), "the pair should agree on some positions only"


@pytest.mark.parametrize("vocab", [20, 32])
def test_heads_of_different_width_are_compared_as_the_round_loop_does(pair, vocab):
    large, small = pair[0], tiny_t5(35, vocab=vocab)
    outputs = [[token for token in row if token < vocab] for row in greedy_outputs(large)]
    result = overlap(decoder(large, small), INPUTS, outputs, 4, None, None)
    np.testing.assert_allclose(result[:, 0], expected(large, small, outputs)[:, 0], atol=1e-5)


def test_what_the_large_model_may_not_write_has_no_probability(pair, monkeypatch):
    """Its logits processors are the pair's, as in decoding."""
    large, small = pair
    favourite = greedy_outputs(large)[0][0]
    monkeypatch.setattr(large.generation_config, "suppress_tokens", [favourite])
    outputs = greedy_outputs(large)
    result = overlap(decoder(large, small), INPUTS, outputs, 4, None, None)
    np.testing.assert_allclose(result, expected(large, small, outputs, [favourite]), atol=1e-5)
    assert not np.allclose(result, expected(large, small, outputs))
