import math

import numpy as np
import pytest
import torch

import bild
from pipelines.alignment.overlap import _compare, overlap
from tests.bild.models import PAD, START, tiny_t5

INPUTS = [[5, 9, 7, 1], [4, 1], [8, 8, 3, 6, 2, 1], [11, 12, 1]]


def pad(rows):
    tensors = [torch.tensor(row) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def greedy_outputs(large):
    ids, mask = pad(INPUTS)
    out = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=9)
    return [row[1 : 1 + stats.tokens] for row, stats in zip(out.sequences.tolist(), out.stats, strict=True)]


def logits(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


@pytest.fixture(scope="module")
def pair():
    large = tiny_t5(34)  # its outputs end at different lengths
    return large, tiny_t5(35, like=large)


def test_hand_written_distributions():
    large = logits([0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3])
    small = logits([0.2, 0.3, 0.5], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3])
    mask = torch.tensor([[1, 1, 0]])
    torch.testing.assert_close(_compare(large, small, mask), torch.tensor([[0.7 + 0.9, 1.0, 2.0]]).double())


def test_a_token_that_one_head_lacks_counts_as_zero():
    large = logits([0.5, 0.3, 0.2])
    small = logits([0.6, 0.4])
    torch.testing.assert_close(
        _compare(large, small, torch.tensor([[1]])), torch.tensor([[0.5 + 0.3, 1.0, 1.0]]).double()
    )


def test_tokens_that_the_large_head_lacks_are_never_drafted():
    """As in the round loop: what is left of the small model's distribution is one again."""
    large, small = logits([0.5, 0.3]), logits([0.3, 0.2, 0.5])
    torch.testing.assert_close(
        _compare(large, small, torch.tensor([[1]])),
        torch.tensor([[min(0.625, 0.6) + min(0.375, 0.4), 1.0, 1.0]]).double(),
    )


def test_a_model_is_fully_like_itself(pair):
    large, _ = pair
    outputs = greedy_outputs(large)
    result = overlap(large, large, INPUTS, outputs, pad, batch_size=2)
    lengths = [len(row) for row in outputs]
    np.testing.assert_allclose(result, np.array([lengths, lengths, lengths]).T, atol=1e-5)


def test_equals_a_prefix_by_prefix_computation(pair):
    large, small = pair
    outputs = greedy_outputs(large)
    assert len({len(row) for row in outputs}) > 1, "rows of one length would not show a wrong mask"
    expected = np.zeros((len(INPUTS), 3))
    for row, (source, tokens) in enumerate(zip(INPUTS, outputs, strict=True)):
        for position, token in enumerate(tokens):
            before = torch.tensor([[START, *tokens[:position]]])
            with torch.no_grad():
                probs = [
                    model(input_ids=torch.tensor([source]), decoder_input_ids=before).logits[0, -1].softmax(-1)
                    for model in (large, small)
                ]
            # The large model wrote its own best token, so agreeing with it is agreeing with the text.
            expected[row] += [float(torch.minimum(*probs).sum()), float(probs[1].argmax() == token), 1]
    for batch_size in (1, 3, 4):
        result = overlap(large, small, INPUTS, outputs, pad, batch_size)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert 0 < expected[:, 1].sum() < expected[:, 2].sum(), "the pair should agree on some positions only"


def test_a_large_vocabulary_shrinks_the_batch_not_the_result(pair, monkeypatch):
    large, small = pair
    outputs = greedy_outputs(large)
    whole = overlap(large, small, INPUTS, outputs, pad, batch_size=4)
    widths = []
    monkeypatch.setattr("pipelines.alignment.overlap.BUDGET", 1)

    def noting(rows):
        widths.append(len(rows))
        return pad(rows)

    np.testing.assert_allclose(overlap(large, small, INPUTS, outputs, noting, batch_size=4), whole, atol=1e-5)
    assert set(widths) == {1}
    assert math.isfinite(whole.sum())
