"""Decoders, their atoms and the projection of their columns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparse_lightning.datafits import ReluNetworkDataFit
from sparse_lightning.decoders import (
    Decoder,
    LinearDecoder,
    LinearNetworkDecoder,
    MultiLayerDecoder,
    UnitColumns,
)
from sparse_lightning.errors import SettingError


def test_shapes_of_the_paper():
    linear, nonlinear = LinearDecoder(128, 784), MultiLayerDecoder(128, [1024], 784)
    assert linear.weight.shape == (784, 128)
    weights = dict(nonlinear.named_parameters())
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "hidden.0.weight": (1024, 128),
        "hidden.0.bias": (1024,),
        "output.weight": (784, 1024),
    }
    codes = torch.rand(3, 128)
    torch.testing.assert_close(linear(codes), codes @ linear.weight.T)
    hidden = torch.relu(codes @ weights["hidden.0.weight"].T + weights["hidden.0.bias"])
    torch.testing.assert_close(nonlinear(codes), hidden @ nonlinear.output.weight.T)


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


class Convolutional(Decoder):
    """A decoder of a user's own, one of whose weights is no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.code_dim, self.input_dim = 5, 16
        self.maps = nn.Linear(5, 2 * 16)
        self.convolution = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        return self.convolution(self.maps(codes).view(-1, 2, 4, 4)).flatten(1)

    def column_groups(self):
        return [(self.maps.weight, (0,)), (self.convolution.weight, (0, 2, 3))]


@pytest.mark.parametrize("norm", [1.0, 0.3])
@pytest.mark.parametrize(
    "make", [lambda: LinearDecoder(5, 7), lambda: MultiLayerDecoder(5, [9, 4], 7), Convolutional]
)
def test_unit_columns(make, norm):
    decoder = make()
    first = decoder.column_groups()[0][0]
    with torch.no_grad():
        first[:, 1] = 0
    before = first.detach().clone()
    UnitColumns(norm)(decoder)
    for norms in decoder.column_norms():
        norms = norms[norms > 0]
        torch.testing.assert_close(norms, torch.full_like(norms, norm))
    assert (first[:, 1] == 0).all(), "a column of zeros has no direction"
    cosine = nn.functional.cosine_similarity(first[:, 0], before[:, 0], dim=0)
    assert float(cosine.detach()) == pytest.approx(1)


def test_a_column_of_a_convolution_is_the_kernel_of_one_input_channel():
    decoder = Convolutional()
    kernels = decoder.convolution.weight.detach()
    expected = torch.stack([kernels[:, channel].norm() for channel in range(2)])
    torch.testing.assert_close(decoder.column_norms()[1], expected)


class Unfolded(Decoder):
    """Convolutions of each kind, whose columns nobody wrote down."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.code_dim, self.input_dim = 4 * 6, 40
        self.up = nn.ConvTranspose1d(4, 6, 5, padding=2)
        self.convolution = nn.Conv1d(6, 2, 3, padding=1, groups=groups)
        self.out = nn.Linear(12, 40, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        maps = torch.relu(self.up(codes.view(-1, 4, 6)))
        return self.out(torch.relu(self.convolution(maps)).flatten(1))


def test_columns_of_convolutions_are_what_one_input_component_adds():
    decoder = Unfolded()
    up, convolution, out = (dims for _, dims in decoder.column_groups())
    assert (up, convolution, out) == ((1, 2), (0, 2), (0,))
    assert [len(norms) for norms in decoder.column_norms()] == [4, 6, 12]
    for layer, channels, norms in zip(
        (decoder.up, decoder.convolution), (4, 6), decoder.column_norms()
    ):
        # An impulse in the middle, away from borders.
        for channel in range(channels):
            impulse = torch.zeros(1, channels, 11)
            impulse[0, channel, 5] = 1
            added = layer(impulse) - layer(torch.zeros_like(impulse))
            torch.testing.assert_close(added.norm(), norms[channel])
    UnitColumns()(decoder)
    for norms in decoder.column_norms():
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert decoder.atoms().shape == (24, 40)


def test_columns_of_a_convolution_in_groups_must_be_written_down():
    with pytest.raises(SettingError, match=r"Conv1d with groups=2 .*column_groups\(\)"):
        UnitColumns()(Unfolded(groups=2))


def test_a_matrix_of_rows_is_no_matrix_of_columns():
    class Rows(Decoder):
        def __init__(self, code_dim: int, input_dim: int) -> None:
            super().__init__()
            self.code_dim, self.input_dim = code_dim, input_dim
            self.dictionary = nn.Parameter(torch.randn(code_dim, input_dim))

        def forward(self, codes: Tensor) -> Tensor:
            return codes @ self.dictionary

    with pytest.raises(SettingError, match=r"Rows\.dictionary of shape \(6, 4\) has a row for"):
        UnitColumns()(Rows(6, 4))


def test_a_weight_that_two_layers_share_has_columns_once():
    decoder = Unfolded()
    decoder.tied = nn.Linear(12, 40, bias=False)
    decoder.tied.weight = decoder.out.weight
    assert len(decoder.column_groups()) == 3


def test_columns_that_do_not_exist_cannot_have_a_norm():
    class WithoutColumns(Convolutional):
        def column_groups(self):
            return []

    with pytest.raises(SettingError, match=r"model\.constraint\.norm=1\.0 cannot hold: Without"):
        UnitColumns()(WithoutColumns())


def test_bad_settings():
    for widths, told in (([], r"\[\]"), (4, "4"), ("43", "43")):
        with pytest.raises(SettingError, match=f"hidden_dims={told} must list at least one"):
            MultiLayerDecoder(5, widths, 7)
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
        used.column_groups()[0][0][:, 2:4] = 0
        decayed.column_groups()[0][0][:, 2] = 0.9 * tiny**0.5
        decayed.column_groups()[0][0][:, 3] = -tiny / 2
    inputs, codes = torch.randn(20, 10, dtype=dtype), torch.rand(20, 6, dtype=dtype)
    found = [decoder.datafit(inputs).value_and_gradient(codes) for decoder in (used, decayed)]
    for one, other in zip(*found):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_inference_by_autograd_is_in_float32_or_better(kind):
    decoder = Convolutional().to(kind)
    finer = torch.promote_types(kind, torch.float32)
    exact = copy.deepcopy(decoder).to(finer)
    inputs, codes = torch.randn(3, 16, dtype=finer), torch.rand(3, 5, dtype=finer)
    expected = exact.datafit(inputs).value_and_gradient(codes)
    with torch.inference_mode():
        found = decoder.datafit(inputs).value_and_gradient(codes)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)
    assert next(decoder.parameters()).dtype == kind


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_not_hidden(number):
    decoder = MultiLayerDecoder(6, [8], 10)
    with torch.no_grad():
        decoder.output.weight[0, 0] = number
    assert not decoder.datafit(torch.randn(5, 10)).value(torch.ones(5, 6)).isfinite().any()


@pytest.mark.parametrize("base", [LinearDecoder, MultiLayerDecoder, LinearNetworkDecoder])
def test_inference_sees_the_forward_pass_of_a_subclass(base):
    class Squashed(base):
        def forward(self, codes):
            return torch.sigmoid(super().forward(codes))

    decoder = Squashed(4, 6) if base is LinearDecoder else Squashed(4, [5], 6)
    codes, inputs = torch.rand(3, 4), torch.rand(3, 6)
    errors = (decoder(codes) - inputs).square().mean(1)
    torch.testing.assert_close(decoder.datafit(inputs).value(codes), errors)


class Doubled:
    """Mixed in before a decoder, it changes what the decoder draws."""

    def forward(self, codes: Tensor) -> Tensor:
        return 2 * super().forward(codes)


def with_relu_inside(decoder: LinearNetworkDecoder) -> LinearNetworkDecoder:
    decoder.layers.insert(1, nn.ReLU())
    return decoder


def with_output_bias(decoder: MultiLayerDecoder) -> MultiLayerDecoder:
    decoder.output = nn.Linear(6, 7)
    return decoder


def with_norm_inside(decoder: MultiLayerDecoder) -> MultiLayerDecoder:
    decoder.hidden.insert(1, nn.LayerNorm(6))
    return decoder


class Absolute(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight.abs(), self.bias)


def with_absolute_output(decoder: MultiLayerDecoder) -> MultiLayerDecoder:
    decoder.output = Absolute(6, 7, bias=False)
    return decoder


def with_unit_atoms(decoder: MultiLayerDecoder) -> MultiLayerDecoder:
    nn.utils.parametrizations.weight_norm(decoder.output, dim=1)
    return decoder


@pytest.mark.parametrize(
    "decoder",
    [
        type("Mixed", (Doubled, LinearDecoder), {})(5, 7),
        type("Below", (type("Mixed", (Doubled, MultiLayerDecoder), {}),), {})(5, [6], 7),
        with_relu_inside(LinearNetworkDecoder(5, [6], 7)),
        with_output_bias(MultiLayerDecoder(5, [6], 7)),
        with_norm_inside(MultiLayerDecoder(5, [6], 7)),
        with_absolute_output(MultiLayerDecoder(5, [6], 7)),
        with_unit_atoms(MultiLayerDecoder(5, [6], 7)),
    ],
    ids=[
        "mixed in", "below a mixed one", "relu", "output bias", "layer norm", "another forward",
        "parametrised",
    ],
)  # fmt: skip
def test_inference_sees_what_the_decoder_draws(decoder):
    inputs, codes = torch.randn(3, 7), torch.rand(3, 5)
    expected = (decoder(codes) - inputs).square().mean(1)
    torch.testing.assert_close(decoder.datafit(inputs).value(codes), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearDecoder(5, 7),
        lambda: MultiLayerDecoder(5, [6], 7),
        lambda: LinearNetworkDecoder(5, [6], 7),
    ],
)
def test_inference_sees_weights_that_a_hook_makes(make):
    decoder, codes = make(), torch.rand(3, 5)
    layer = next(m for m in decoder.modules() if hasattr(m, "weight"))
    prune.random_unstructured(layer, "weight", 0.5)
    with torch.no_grad():
        layer.weight_orig.mul_(3)
    inputs = torch.randn(3, 7)
    found = decoder.datafit(inputs).value(codes)
    torch.testing.assert_close(found, (decoder(codes) - inputs).square().mean(1))


def test_parametrised_layers_keep_the_fast_data_fit():
    decoder = with_unit_atoms(MultiLayerDecoder(5, [6], 7))
    assert isinstance(decoder.datafit(torch.randn(3, 7)), ReluNetworkDataFit)


def test_parametrised_weights_cannot_be_rescaled_from_outside():
    decoder = with_unit_atoms(MultiLayerDecoder(5, [6], 7))
    with pytest.raises(SettingError, match=r"parametrised weights. Set model\.constraint=null"):
        UnitColumns()(decoder)


def test_a_data_fit_that_is_mixed_in_is_kept():
    class Own:
        def datafit(self, inputs: Tensor) -> str:
            return "own"

    mixed = type("Mixed", (Own, LinearDecoder), {})
    assert mixed(5, 7).datafit(torch.zeros(1, 7)) == "own"
