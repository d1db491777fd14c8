"""Decoders, their atoms and the projection of their columns."""

from __future__ import annotations

import copy

import pytest
import torch

from sparse_lightning.decoders import (
    LinearDecoder,
    LinearLeastSquares,
    MultiLayerDecoder,
    QuadraticTerm,
    UnitColumns,
)
from sparse_lightning.errors import SettingError


def test_shapes_of_the_paper():
    linear, nonlinear = LinearDecoder(128, 784), MultiLayerDecoder(128, [1024], 784)
    assert linear.weight.shape == (784, 128)
    names = {name: tuple(p.shape) for name, p in nonlinear.named_parameters()}
    assert names == {
        "hidden.0.weight": (1024, 128),
        "hidden.0.bias": (1024,),
        "output.weight": (784, 1024),
    }
    codes = torch.rand(3, 128)
    torch.testing.assert_close(linear(codes), codes @ linear.weight.T)
    hidden = torch.relu(codes @ names_of(nonlinear)["hidden.0.weight"].T + nonlinear.hidden[0].bias)
    torch.testing.assert_close(nonlinear(codes), hidden @ nonlinear.output.weight.T)


def names_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters())


def test_gram_form_is_taken_where_it_pays():
    """It does at m=1024, d=784; it does not at m=2048, nor for three iterations."""
    inputs = torch.randn(250, 784)
    narrow = MultiLayerDecoder(128, [1024], 784).bind(inputs)
    wide = MultiLayerDecoder(256, [2048], 784).bind(inputs)
    assert isinstance(narrow.prepared_for(50).top, QuadraticTerm)
    assert narrow.prepared_for(3) is narrow
    assert isinstance(narrow.top, LinearLeastSquares)
    assert wide.prepared_for(1_000) is wide


@pytest.mark.parametrize("hidden_dims", [[16], [16, 14]])
def test_gram_form_is_the_same_function(hidden_dims):
    decoder = MultiLayerDecoder(12, hidden_dims, 30).double()
    codes, rows = torch.rand(20, 12).double(), torch.tensor([3, 1, 18])
    plain = decoder.bind(torch.randn(20, 30).double())
    prepared = plain.prepared_for(1_000)
    assert prepared is not plain
    for one, other, these in (
        (plain, prepared, codes),
        (plain.restrict(rows), prepared.restrict(rows), codes[rows]),
    ):
        for left, right in zip(one.value_and_gradient(these), other.value_and_gradient(these)):
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one.value(these), other.value(these), rtol=1e-10, atol=1e-12)
        out = torch.full_like(these, torch.nan)
        assert other.gradient(these, out=out) is out
        torch.testing.assert_close(out, one.gradient(these), rtol=1e-10, atol=1e-12)


def test_atoms_of_a_linear_decoder_are_its_columns():
    decoder = LinearDecoder(5, 7)
    torch.testing.assert_close(decoder.atoms(), decoder.weight.detach().T)
    scale = torch.arange(5.0)
    torch.testing.assert_close(decoder.atoms(scale), (decoder.weight.detach() * scale).T)


def test_atoms_of_a_nonlinear_decoder_are_single_code_responses():
    decoder = MultiLayerDecoder(5, [9], 7)
    scale = torch.rand(5) + 0.5
    for j, atom in enumerate(decoder.atoms(scale)):
        code = torch.zeros(1, 5)
        code[0, j] = scale[j]
        torch.testing.assert_close(atom, (decoder(code) - decoder(torch.zeros(1, 5)))[0].detach())


@pytest.mark.parametrize("norm", [1.0, 0.3])
@pytest.mark.parametrize("decoder", [LinearDecoder(5, 7), MultiLayerDecoder(5, [9, 4], 7)])
def test_projection(decoder, norm):
    first = decoder.weight_matrices()[0]
    with torch.no_grad():
        first[:, 1] = 0
    before = first.detach().clone()
    UnitColumns(norm)(decoder)
    for weight in decoder.weight_matrices():
        norms = torch.linalg.vector_norm(weight, dim=0)
        norms = norms[norms > 0]
        torch.testing.assert_close(norms, torch.full_like(norms, norm))
    assert (first[:, 1] == 0).all(), "a column of zeros has no direction"
    cosine = torch.nn.functional.cosine_similarity(first[:, 0], before[:, 0], dim=0)
    assert float(cosine.detach()) == pytest.approx(1)


def test_bad_settings():
    with pytest.raises(SettingError, match="hidden_dims=\\[\\]"):
        MultiLayerDecoder(5, [], 7)
    with pytest.raises(SettingError, match=r"model\.constraint\.norm=0"):
        UnitColumns(0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden_dims", [[], [16]])
def test_inference_never_multiplies_with_subnormal_numbers(hidden_dims, dtype):
    """Such are the squares of what weight decay leaves of an atom that no code uses."""
    used = MultiLayerDecoder(6, hidden_dims, 10) if hidden_dims else LinearDecoder(6, 10)
    used = used.to(dtype)
    decayed = copy.deepcopy(used)
    tiny = torch.finfo(dtype).tiny
    with torch.no_grad():
        used.weight_matrices()[0][:, 2:4] = 0
        decayed.weight_matrices()[0][:, 2] = 0.9 * tiny**0.5
        decayed.weight_matrices()[0][:, 3] = -tiny / 2
    inputs, codes = torch.randn(20, 10, dtype=dtype), torch.rand(20, 6, dtype=dtype)
    for one, other in zip(
        used.bind(inputs).value_and_gradient(codes), decayed.bind(inputs).value_and_gradient(codes)
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_not_hidden(number):
    decoder = MultiLayerDecoder(6, [8], 10)
    with torch.no_grad():
        decoder.output.weight[0, 0] = number
    assert not decoder.bind(torch.randn(5, 10)).value(torch.ones(5, 6)).isfinite().any()
