"""Decoders beyond one hidden layer: linear networks, deep networks, convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse_lightning.decoders import (
    ConvolutionalDecoder,
    Decoder,
    LinearDecoder,
    LinearNetworkDecoder,
    MultiLayerDecoder,
    UnitColumns,
)
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.registry import build, describe
from sparse_lightning.solvers import ISTA, Adaptive

L = 6
DECODERS = {
    "linear with a bias": lambda: LinearDecoder(L, 64, has_bias=True),
    "linear network": lambda: LinearNetworkDecoder(L, [9, 11], 64),
    "two hidden layers": lambda: MultiLayerDecoder(L, [24, 18], 64),
    "three hidden layers": lambda: MultiLayerDecoder(L, [24, 18, 20], 64),
    "convolutional": lambda: ConvolutionalDecoder(L, [4, 3], 64, [8, 8]),
    "convolutional in colour": lambda: ConvolutionalDecoder(L, [4, 3], 96, [3, 4, 8]),
}
CONVOLUTIONAL = ["convolutional", "convolutional in colour"]


def made(name: str) -> Decoder:
    decoder = DECODERS[name]().double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


@pytest.mark.parametrize("name", DECODERS)
def test_data_fits_against_autograd(name):
    decoder = made(name)
    inputs = torch.randn(9, decoder.input_dim).double()
    codes = torch.rand(9, L).double().requires_grad_()
    values = (decoder(codes) - inputs).square().mean(1)
    (gradient,) = torch.autograd.grad(values.sum(), codes)
    found = decoder.datafit(inputs).value_and_gradient(codes.detach())
    torch.testing.assert_close(found[0].detach(), values.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1].detach(), gradient, rtol=1e-10, atol=1e-12)
    assert type(build(describe(decoder))) is type(decoder)


@pytest.mark.parametrize("name", DECODERS)
def test_atoms_are_what_a_component_adds_to_nothing(name):
    decoder = made(name)
    scale = torch.rand(L).double() + 0.5
    nothing = decoder(torch.zeros(1, L).double())
    expected = torch.cat([decoder(scale[j] * torch.eye(L).double()[j : j + 1]) for j in range(L)])
    torch.testing.assert_close(decoder.atoms(scale), (expected - nothing).detach())


@pytest.mark.parametrize(
    ("name", "variance_weight"),
    [("linear network", 0.0), ("three hidden layers", 0.0), ("convolutional", 5.0)],
)
def test_adaptive_steps_need_no_tuning(name, variance_weight):
    """With large weights energies end as low as with two hundred steps of a size by hand."""
    decoder = made(name)
    with torch.no_grad():
        for weight, _ in decoder.column_groups():
            weight.mul_(2)
        truth = torch.rand(10, L).double() * (torch.rand(10, L) < 0.5)
        inputs = decoder(truth) + 0.01 * torch.randn(10, 64).double()
    energy = Energy(0.001, variance_weight, 0.3)
    objective, start = energy.bind(decoder, inputs), torch.rand(10, L).double()
    slow = ISTA(0.05, max_iterations=200, tolerance=0.0)(objective, start)
    solution = Adaptive(max_iterations=100)(objective, start)
    with torch.no_grad():
        energies = [float(objective.value(c)) for c in (start, slow.codes, solution.codes)]
    # Without convexity either may end in the better valley.
    assert energies[2] < 1.05 * energies[1] < 0.8 * energies[0]


def test_a_linear_network_is_the_product_of_its_weights():
    decoder = made("linear network")
    product = torch.linalg.multi_dot([layer.weight for layer in reversed(decoder.layers)])
    codes = torch.rand(5, L).double()
    torch.testing.assert_close(decoder(codes), codes @ product.T)
    assert [weight.shape for weight, _ in decoder.column_groups()] == [(9, 6), (11, 9), (64, 11)]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_decoder_by_a_loop(name):
    decoder = made(name)
    height, width = (side // 4 for side in decoder.image_shape[-2:])
    code = torch.rand(L).double()
    maps = (decoder.maps.weight @ code + decoder.maps.bias).detach().numpy()
    maps = maps.reshape(4, height, width)
    for convolution in decoder.convolutions:
        bias = np.zeros(convolution.out_channels)
        if convolution.bias is not None:
            bias = convolution.bias.detach().numpy()
        maps = literal_transposed(np.maximum(maps, 0), convolution.weight.detach().numpy(), bias)
    assert maps.shape == (1, 8, 8) if name == "convolutional" else maps.shape == (3, 4, 8)
    torch.testing.assert_close(decoder(code[None])[0].detach(), torch.from_numpy(maps).flatten())
    assert decoder.convolutions[-1].bias is None


def literal_transposed(maps: np.ndarray, kernels: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Each pixel of each map stamps its kernel, two pixels apart; a border of one is cut off."""
    _, height, width = maps.shape
    wide = np.zeros((kernels.shape[1], 2 * height + 2, 2 * width + 2))
    for channel, row, column in np.ndindex(*maps.shape):
        place = (slice(None), slice(2 * row, 2 * row + 4), slice(2 * column, 2 * column + 4))
        wide[place] += maps[channel, row, column] * kernels[channel]
    return wide[:, 1:-1, 1:-1] + bias[:, None, None]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_gradient_of_a_convolutional_data_fit_by_finite_differences(name):
    decoder = made(name)
    inputs, codes = torch.randn(3, decoder.input_dim).double(), torch.rand(3, L).double()
    fit, step = decoder.datafit(inputs), 1e-6
    for component in range(L):
        move = step * torch.eye(L).double()[component]
        slope = (fit.value(codes + move) - fit.value(codes - move)) / (2 * step)
        found = fit.gradient(codes)[:, component]
        torch.testing.assert_close(found, slope.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_columns_of_a_convolution_are_what_one_pixel_of_one_map_adds(name):
    decoder = made(name)
    UnitColumns(0.7)(decoder)
    assert [len(norms) for norms in decoder.column_norms()] == [L, 4, 3]
    for norms in decoder.column_norms():
        torch.testing.assert_close(norms, torch.full_like(norms, 0.7))
    for convolution in decoder.convolutions:
        pixel = torch.zeros(1, convolution.in_channels, 5, 5).double()
        pixel[0, 2, 2, 2] = 1  # away from the border
        added = convolution(pixel) - convolution(torch.zeros_like(pixel))
        assert float(added.detach().norm()) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("channels", "image_shape"),
    [([2], [6, 10]), ([2, 3], [1, 4, 12]), ([4, 3, 2], [3, 8, 16]), ([2], (5, 2, 2))],
)
def test_images_of_every_shape_that_the_maps_can_reach(channels, image_shape):
    size = int(np.prod(image_shape))
    decoder = ConvolutionalDecoder(L, channels, size, image_shape)
    assert decoder(torch.rand(2, L)).shape == (2, size)
    maps = torch.rand(1, channels[0], *(side // 2 ** len(channels) for side in image_shape[-2:]))
    for convolution in decoder.convolutions:
        maps = convolution(maps)
    drawn = image_shape if len(image_shape) == 3 else (1, *image_shape)
    assert maps.shape[1:] == tuple(drawn)
    again = build(describe(decoder))
    again.load_state_dict(decoder.state_dict())
    torch.testing.assert_close(again.atoms(), decoder.atoms())


def test_descriptions_and_weights_from_before_colours_load():
    described = {
        "name": "ConvolutionalDecoder", "code_dim": 6, "channels": [4, 3], "input_dim": 64,
        "image_shape": [8, 8],
    }  # fmt: skip
    shapes = {
        "maps.weight": (16, 6), "maps.bias": (16,), "convolutions.0.weight": (4, 3, 4, 4),
        "convolutions.0.bias": (3,), "convolutions.1.weight": (3, 1, 4, 4),
    }  # fmt: skip
    decoder = build(described)
    decoder.load_state_dict({name: torch.rand(shape) for name, shape in shapes.items()})
    assert describe(decoder) == described


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConvolutionalDecoder(6, [4], 64, [8, 9]),
            r"image_shape=\[8, 9\] must be a height",
        ),
        (
            lambda: ConvolutionalDecoder(6, [4, 2], 36, [6, 6]),
            r"image_shape=\[6, 6\].*multiples of 4.*images of other sides\.$",
        ),
        (
            lambda: ConvolutionalDecoder(6, [4, 2], 192, [8, 8, 3]),
            r"image_shape=\[8, 8, 3\].*multiples of 4.*let the colours come first\.$",
        ),
        (
            lambda: ConvolutionalDecoder(6, [4], 64, [64]),
            r"image_shape=\[64\] must be a height and a width, or channels, .*input_dim=64",
        ),
        (
            lambda: ConvolutionalDecoder(6, [4], 64, [3, 8, 8]),
            r"image_shape=\[3, 8, 8\] must be a height and a width, or channels, .*input_dim=64",
        ),
        (
            lambda: ConvolutionalDecoder(6, [4], 64, [-8, -8]),
            r"model\.decoder\.image_shape\[0\]=-8 must be a whole number",
        ),
        (lambda: ConvolutionalDecoder(6, [], 64, [8, 8]), r"model\.decoder\.channels=\[\]"),
        (lambda: ConvolutionalDecoder(6, [4, 0], 64, [8, 8]), r"model\.decoder\.channels\[1\]=0"),
        (lambda: LinearNetworkDecoder(6, [], 64), r"model\.decoder\.hidden_dims=\[\]"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError, match=message):
        make()
