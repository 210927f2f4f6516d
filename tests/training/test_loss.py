"""The loss of an update and of its parts."""

import math

import pytest
import torch

from pipelines.training.loss import IGNORED, TokenLoss


def test_by_hand_with_label_smoothing() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [1.0, 3.0]]], dtype=torch.float64)
    labels = torch.tensor([[0, 1, IGNORED]])
    first, second = math.log(1 + math.exp(-2)), math.log(2)
    assert TokenLoss(0.0)({"logits": logits}, labels).item() == pytest.approx((first + second) / 2)
    smoothed = 0.9 * first + 0.1 * (first + first + 2) / 2  # the other label's cross-entropy is 2 more
    assert TokenLoss(0.1)({"logits": logits}, labels).item() == pytest.approx((smoothed + second) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_add_up_to_the_whole(smoothing) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5, 11, dtype=torch.float64)
    labels = torch.randint(0, 11, (6, 5))
    for row in range(6):
        labels[row, 5 - row % 4 :] = IGNORED
    loss = TokenLoss(smoothing)
    items = labels.ne(IGNORED).sum()
    parts = [loss({"logits": logits[rows]}, labels[rows], items) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), loss({"logits": logits}, labels), rtol=0, atol=1e-14)


def test_half_precision_is_summed_in_float32() -> None:
    logits = torch.zeros(1, 1000, 4, dtype=torch.bfloat16)
    loss = TokenLoss(0.0)({"logits": logits}, torch.zeros(1, 1000, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
