"""The prepared products: packed is plain, int8 is exact integer arithmetic that no neighbour disturbs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bild.engine import linear
from bild.engine.linear import ExactInt8Linear, Int8Linear, PackedLinear, PlainLinear, make_linear
from tests.bild.models import default_dtype

SHAPES = [(64, 24), (7, 5), (1, 1), (300, 1000), (2000, 64)]


def weights(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Channels of very different size: one scale for all of them would destroy the small ones.
    return torch.randn(shape, generator=generator) * 10 ** torch.linspace(-3, 1, shape[0]).unsqueeze(-1)


def rows(count, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * 10 ** torch.linspace(-2, 3, count).unsqueeze(-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 8, 33])
def test_packed_is_plain(shape, count):
    weight, x = weights(shape), rows(count, shape[1])
    expected = PlainLinear(weight.double())(x.double())
    torch.testing.assert_close(PackedLinear(weight)(x).double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


def test_packed_keeps_its_own_copy_and_bfloat16():
    weight = weights((64, 24)).bfloat16()
    x = rows(3, 24).bfloat16()
    packed = PackedLinear(weight)
    expected = PlainLinear(weight.clone())(x)
    weight.zero_()
    assert packed(x).dtype == torch.bfloat16
    torch.testing.assert_close(packed(x).float(), expected.float(), rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_its_exact_twin(shape, vnni, monkeypatch):
    if vnni and not torch.cpu._is_vnni_supported():
        vnni = False  # such a processor would overflow, which is why it never gets 8 bits
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    weight, x = weights(shape), rows(9, shape[1])
    fast, exact = Int8Linear(weight)(x), ExactInt8Linear(weight)(x)
    torch.testing.assert_close(fast, exact, rtol=1e-6, atol=0)
    error = (fast - PlainLinear(weight)(x)).abs() / (x.norm(dim=-1, keepdim=True) * weight.norm(dim=-1))
    assert float(error.max()) < (0.01 if vnni else 0.02)


def test_weights_and_activations_are_rounded_to_the_nearest_unit():
    """And use all the units there are: the largest of a channel, or of a row, is the last one."""
    weight, x = weights((64, 24)).double(), rows(9, 24).double()
    scale = linear.channel_scales(weight).double().unsqueeze(-1)
    units = linear.quantize_rows(weight, scale, linear.INT8_LIMIT)
    assert float(((units * scale - weight).abs() / scale).max()) <= 0.5 + 1e-5
    assert units.abs().amax(-1).tolist() == [127.0] * 64
    rounding = linear.RowRounding()
    shifted, worth = rounding(x)
    activations, unit = shifted.double() - rounding.zero_point, worth.double() / rounding.limit
    assert float(((activations * unit - x).abs() / unit).max()) <= 0.5 + 1e-4
    assert activations.abs().amax(-1).tolist() == [float(rounding.limit)] * 9


@pytest.mark.parametrize(("vnni", "limit"), [(True, 127), (False, 63)])
def test_without_an_8_bit_dot_product_activations_keep_7_bits(vnni, limit, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    units, _ = linear.RowRounding()(torch.tensor([[2.0, -2.0, 0.0]]))
    assert (units.int() - (limit + 1)).tolist() == [[limit, -limit, 0]]


@pytest.mark.parametrize("limit", [127, 63])
def test_int8_does_not_overflow(limit, monkeypatch):
    monkeypatch.setattr(linear, "activation_limit", lambda: min(limit, 127 if torch.cpu._is_vnni_supported() else 63))
    weight, x = torch.ones(8, 4096), torch.ones(3, 4096)
    x[1] *= -1
    torch.testing.assert_close(Int8Linear(weight)(x), x @ weight.T, rtol=1e-6, atol=0)


@settings(max_examples=30, derandomize=True)
@given(count=st.integers(1, 40), row=st.integers(0, 39), seed=st.integers(0, 1000), shape=st.sampled_from(SHAPES))
def test_an_int8_row_is_bitwise_the_same_among_any_neighbours(count, row, seed, shape):
    row %= count
    product = Int8Linear(weights(shape, seed))
    x = rows(count, shape[1], seed + 1)
    assert torch.equal(product(x)[row], product(x[row : row + 1])[0])


def test_int8_of_zeros_is_zero():
    product = Int8Linear(torch.cat([torch.zeros(1, 4), torch.ones(1, 4)]))
    assert product(torch.zeros(2, 4)).tolist() == [[0, 0], [0, 0]]
    assert product(torch.ones(1, 4)).tolist() == [[0, pytest.approx(4)]]


def test_the_product_that_is_made(monkeypatch):
    weight = weights((1024, 256))
    assert isinstance(make_linear(weight, int8=False), PackedLinear)
    assert isinstance(make_linear(weight[:64], int8=False), PlainLinear)
    assert isinstance(make_linear(weight.double(), int8=False), PlainLinear)
    assert isinstance(make_linear(weight, int8=True), Int8Linear)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert isinstance(make_linear(weight, int8=False), PlainLinear)
    assert isinstance(make_linear(weight, int8=True), ExactInt8Linear)


def test_bfloat16_is_packed_only_where_the_processor_reads_it(monkeypatch):
    weight = weights((600, 600)).bfloat16()
    for supported, kind in ((True, PackedLinear), (False, PlainLinear)):
        monkeypatch.setattr(linear, "_packs_bfloat16", lambda supported=supported: supported)
        assert type(make_linear(weight, int8=False)) is kind
        assert type(make_linear(weight.float(), int8=False)) is PackedLinear
    monkeypatch.undo()
    assert linear._packs_bfloat16() is torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_rounding_does_not_follow_the_default_dtype():
    weight, x = weights((64, 24)), rows(9, 24)
    expected = Int8Linear(weight)(x)
    with default_dtype(torch.bfloat16):
        assert Int8Linear(weight)(x).equal(expected)
