"""Training a model to write from its lower layers too: the loss of every exit, and what a run makes of it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BartConfig, BartForConditionalGeneration, MT5Config, MT5ForConditionalGeneration

from bild.engine import why_not_t5
from pipelines.cli import UserError
from pipelines.training.exits import ExitLoss, loss_of
from pipelines.training.loss import IGNORED, TokenLoss
from tests.training import tiny
from tests.training.test_gradients import assert_same, exact_run, logged

PAPER, CALM = {1: 1, 3: 1}, {1: 1, 2: 2, 3: 3}
DEEP = {"num_layers": 3, "dropout_rate": 0.0}
MT5 = MT5ForConditionalGeneration(
    MT5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_heads=2, decoder_start_token_id=0, **DEEP)
).double()


def batch(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 40, (len(labels), 5), generator=torch.Generator().manual_seed(1))
    shown = labels.roll(1, 1).masked_fill(labels.roll(1, 1) == IGNORED, 0)
    return {"input_ids": ids, "decoder_input_ids": shown}


def some_labels(rows: int = 4) -> torch.Tensor:
    labels = torch.randint(2, 40, (rows, 6), generator=torch.Generator().manual_seed(2))
    for row in range(rows):
        labels[row, 6 - row % 4 :] = IGNORED
    return labels


def shortened(model: nn.Module, layers: int) -> nn.Module:
    """A copy that has only these layers, so that transformers' own forward says what they write."""
    copied = copy.deepcopy(model)
    copied.decoder.block = copied.decoder.block[:layers]
    return copied


def by_hand(model: nn.Module, labels: torch.Tensor, weights: dict[int, float], smoothing: float) -> torch.Tensor:
    losses = []
    for layer in weights:
        logits = shortened(model, layer)(**batch(labels)).logits
        losses.append(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing))
    return sum(weight * loss for weight, loss in zip(weights.values(), losses, strict=True)) / sum(weights.values())


def computed(model: nn.Module, labels: torch.Tensor, loss: TokenLoss, items: torch.Tensor | None = None):
    with loss.listening():
        return loss(model(**batch(labels)), labels, items)


@pytest.mark.parametrize("model", [tiny.new_model(torch.float64, **DEEP), MT5], ids=["tied t5", "mt5"])
@pytest.mark.parametrize("weights", [PAPER, CALM, {3: 2}, {2: 0.5, 3: 1}], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_mean_of_what_each_depth_loses(model, weights, smoothing) -> None:
    model.eval()
    found = computed(model, some_labels(), ExitLoss(model, weights, smoothing))
    torch.testing.assert_close(found, by_hand(model, some_labels(), weights, smoothing), rtol=1e-12, atol=0)


def test_the_papers_losses() -> None:
    model = tiny.new_model(torch.float64, **DEEP).eval()
    one, two, three = (by_hand(model, some_labels(), {layer: 1}, 0.0) for layer in (1, 2, 3))
    assert computed(model, some_labels(), ExitLoss(model, PAPER, 0.0)).item() == pytest.approx(
        ((one + three) / 2).item()
    )
    calm = (1 * one + 2 * two + 3 * three) / 6
    assert computed(model, some_labels(), ExitLoss(model, CALM, 0.0)).item() == pytest.approx(calm.item())


def test_the_gradient_is_that_of_the_sum() -> None:
    model = tiny.new_model(torch.float64, **DEEP)
    computed(model, some_labels(), ExitLoss(model, CALM, 0.0)).backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    parts = []
    for layer in (1, 2, 3):
        short = shortened(model, layer)
        short.zero_grad()
        logits = short(**batch(some_labels())).logits
        (F.cross_entropy(logits.flatten(0, 1), some_labels().flatten()) * layer / 6).backward()
        parts.append({name: weight.grad for name, weight in short.named_parameters()})
    for name, gradient in found.items():
        expected = sum(part[name] for part in parts if part.get(name) is not None)
        # T5's norm takes its mean in float32.
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


def test_parts_add_up_to_the_whole() -> None:
    model = tiny.new_model(torch.float64, **DEEP).eval()
    loss, labels = ExitLoss(model, PAPER, 0.1), some_labels(6)
    whole = {name: value[:6] for name, value in batch(labels).items()}
    items = labels.ne(IGNORED).sum()

    def of(rows: slice, count: torch.Tensor | None) -> torch.Tensor:
        with loss.listening():
            return loss(model(**{name: value[rows] for name, value in whole.items()}), labels[rows], count)

    parts = [of(rows, items) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), of(slice(0, 6), None), rtol=0, atol=1e-13)


def test_nothing_stays_behind_in_the_model() -> None:
    model = tiny.new_model(**DEEP)
    loss = ExitLoss(model, PAPER, 0.0)
    computed(model, some_labels(), loss)
    assert why_not_t5(model) is None
    assert loss._passed_on == {}


@pytest.mark.parametrize("accumulation", [2, 8])
def test_accumulated_pieces_make_the_same_update(accumulation, tmp_path) -> None:
    for name, pieces in (("whole", 1), ("pieces", accumulation)):
        exact_run(tmp_path / name, pieces, exits=PAPER, layers=3)
    assert_same(tmp_path / "pieces", tmp_path / "whole")
    exact_run(tmp_path / "plain", 1, layers=3)
    assert logged(tmp_path / "plain")[0] != pytest.approx(logged(tmp_path / "whole")[0], rel=1e-3)


def test_no_exits_is_the_plain_loss() -> None:
    assert type(loss_of(MT5, None, 0.1)) is TokenLoss
    assert type(loss_of(MT5, PAPER, 0.1)) is ExitLoss


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({1: 1, 4: 1}, "there is no layer 4, the decoder's last is 3"),
        ({1: 1, 2: 1}, "give the last layer, 3, a weight"),
    ],
)
def test_layers_that_do_not_fit_the_model_are_told(weights, told) -> None:
    with pytest.raises(UserError, match=f"train.exits: {told}"):
        ExitLoss(MT5, weights, 0.0)


def test_other_models_are_told() -> None:
    bart = BartForConditionalGeneration(
        BartConfig(vocab_size=40, d_model=8, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
                   encoder_attention_heads=1, decoder_attention_heads=1)
    )  # fmt: skip
    with pytest.raises(UserError, match=r"train.exits: is for T5 and mT5, and this is a BartForConditionalGeneration"):
        loss_of(bart, {1: 1, 2: 1}, 0.0)
