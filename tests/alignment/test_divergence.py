"""Divergences against formulas written out by hand, their gradients, chunks and tails."""

import math

import pytest
import torch

from pipelines.alignment import divergence as module
from pipelines.alignment.divergence import NAMES, Divergence, total
from pipelines.cli import UserError


def make(name, beta=0.3, temperature=1.0, top_k=None):
    return Divergence(name=name, beta=beta, temperature=temperature, top_k=top_k)


def logits(seed, *shape):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(row, temperature=1.0):
    scaled = [math.exp(value / temperature) for value in row]
    return [value / sum(scaled) for value in scaled]


def by_hand(name, p, q, beta=0.3):
    """p: teacher, q: student, lists of probabilities."""

    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    m = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
    return {
        "forward_kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": beta * kl(p, m) + (1 - beta) * kl(q, m),
        "total_variation": sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2,
    }[name]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", NAMES)
def test_by_hand(name, temperature):
    student, teacher = logits(0, 4, 7), logits(1, 4, 7)
    pairs = [[softmax(row, temperature) for row in side.tolist()] for side in (teacher, student)]
    expected = [by_hand(name, p, q) for p, q in zip(*pairs, strict=True)]
    found = make(name, temperature=temperature)(student, teacher)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert make(name)(teacher, teacher).abs().max() < 1e-12


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, top_k):
    teacher, counted = logits(1, 2, 3, 6), torch.tensor([[True, True, False], [True, False, False]])
    kind = make(name, temperature=1.5, top_k=top_k)
    student = logits(0, 2, 3, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: total(kind, given, teacher, counted), student)
    (gradient,) = torch.autograd.grad(3 * total(kind, student, teacher, counted), student)
    (expected,) = torch.autograd.grad(3 * kind(student[counted], teacher[counted]).sum(), student)
    torch.testing.assert_close(gradient, expected)
    assert not gradient[~counted].any()


@pytest.mark.parametrize("name", NAMES)
def test_chunks_change_nothing_and_stay_within_the_budget(name, monkeypatch):
    student, teacher = logits(0, 3, 5, 11).requires_grad_(), logits(1, 3, 5, 11)
    counted = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.8
    kind = make(name)
    whole = total(kind, student, teacher, counted)
    (gradient,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr(module, "BUDGET", 30)
    sizes = []

    def watched(self, small, large):
        sizes.append(small.shape)
        return called(self, small, large)

    called = Divergence.__call__
    monkeypatch.setattr(Divergence, "__call__", watched)
    chunked = total(kind, student, teacher, counted)
    assert len(sizes) == math.ceil(int(counted.sum()) / 2)
    assert all(rows * width <= 30 for rows, width in sizes)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(torch.autograd.grad(chunked, student)[0], gradient)


@pytest.mark.parametrize("name", NAMES)
def test_a_tail_of_one_token_or_none_is_exact(name):
    student, teacher = logits(0, 5, 8), logits(1, 5, 8)
    exact = make(name)(student, teacher)
    for top_k in (7, 8, 9):
        torch.testing.assert_close(make(name, top_k=top_k)(student, teacher), exact)


@pytest.mark.parametrize("name", NAMES)
def test_the_tail_is_one_bucket_with_all_of_its_mass(name):
    student, teacher = logits(0, 1, 8), logits(1, 1, 8)
    p, q = softmax(teacher[0].tolist()), softmax(student[0].tolist())
    first, second = sorted(range(8), key=lambda token: -p[token])[:2]
    p, q = ([side[first], side[second], 1 - side[first] - side[second]] for side in (p, q))
    assert make(name, top_k=2)(student, teacher).item() == pytest.approx(by_hand(name, p, q))


def test_jsd_tends_to_both_divergences():
    student, teacher = logits(0, 6, 9), logits(1, 6, 9)
    near = 1e-6
    to_forward = make("jsd", beta=near)(student, teacher) / near
    to_reverse = make("jsd", beta=1 - near)(student, teacher) / near
    torch.testing.assert_close(to_forward, make("forward_kl")(student, teacher), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(to_reverse, make("reverse_kl")(student, teacher), rtol=1e-3, atol=1e-5)
    middle = make("jsd", beta=0.5)
    torch.testing.assert_close(middle(student, teacher), middle(teacher, student))
    assert middle(student, teacher).max() < math.log(2)


def test_total_variation_is_what_acceptance_lacks():
    student, teacher = logits(0, 6, 9), logits(1, 6, 9)
    alpha = torch.minimum(student.softmax(-1), teacher.softmax(-1)).sum(-1)
    torch.testing.assert_close(make("total_variation")(student, teacher), 1 - alpha)


@pytest.mark.parametrize(("small", "large"), [(9, 7), (7, 9)])
def test_heads_of_different_width_meet_in_their_common_tokens(small, large):
    student, teacher = logits(0, 2, 3, small), logits(1, 2, 3, large)
    counted = torch.ones(2, 3, dtype=torch.bool)
    found = total(make("forward_kl"), student, teacher, counted)
    torch.testing.assert_close(found, total(make("forward_kl"), student[..., :7], teacher[..., :7], counted))


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("name", NAMES)
def test_models_that_are_sure_leave_finite_numbers(name, top_k):
    student = torch.tensor([[[200.0, 0.0, -200.0, 0.0], [0.0, 0.0, 300.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[-200.0, 200.0, 0.0, 0.0], [0.0, 0.0, 300.0, 0.0]]])
    value = total(make(name, top_k=top_k), student, teacher, torch.ones(1, 2, dtype=torch.bool))
    assert math.isfinite(value.item())
    assert torch.autograd.grad(value, student)[0].isfinite().all()


def test_half_precision_is_compared_in_float32():
    student, teacher = logits(0, 1, 40, 9).bfloat16().requires_grad_(), logits(1, 1, 40, 9).bfloat16()
    counted = torch.ones(1, 40, dtype=torch.bool)
    value = total(make("forward_kl"), student, teacher, counted)
    assert value.dtype == torch.float32
    exact = total(make("forward_kl"), student.detach().double(), teacher.double(), counted)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    value.backward()
    assert student.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "kl"}, r"align\.divergence=kl: choose one of forward_kl, reverse_kl, jsd, total_variation"),
        ({"name": "jsd", "beta": 0.0}, r"align\.beta=0\.0: give a number above 0 and below 1"),
        ({"name": "jsd", "beta": 1.0}, r"align\.beta=1\.0"),
        ({"name": "jsd", "temperature": 0.0}, r"align\.distill_temperature=0\.0: give a number above 0"),
        ({"name": "jsd", "temperature": math.inf}, r"align\.distill_temperature=inf"),
    ],
)
def test_bad_values_are_one_line(change, message):
    with pytest.raises(UserError, match=message):
        make(**change)
