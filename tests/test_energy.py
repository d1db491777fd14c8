"""The energy against autograd, finite differences and its own definition."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.errors import InputError, SettingError

INPUT_DIM, CODE_DIM, SAMPLES = 14, 6, 9


class TanhDecoder(Decoder):
    """A decoder of a user's own, with the gradient that autograd gives."""

    def __init__(self) -> None:
        super().__init__()
        self.code_dim, self.input_dim = CODE_DIM, INPUT_DIM
        self.linear = torch.nn.Linear(CODE_DIM, INPUT_DIM)

    def forward(self, codes: Tensor) -> Tensor:
        return torch.tanh(self.linear(codes))


class DirectDecoder(MultiLayerDecoder):
    """A hidden layer so wide that its Gram matrix does not pay."""

    def __init__(self) -> None:
        super().__init__(CODE_DIM, [4 * INPUT_DIM], INPUT_DIM)


DECODERS = {
    "linear": lambda: LinearDecoder(CODE_DIM, INPUT_DIM),
    "one hidden layer": lambda: MultiLayerDecoder(CODE_DIM, [10], INPUT_DIM),
    "three hidden layers": lambda: MultiLayerDecoder(CODE_DIM, [10, 8, 12], INPUT_DIM),
    "wide hidden layer": DirectDecoder,
    "autograd": TanhDecoder,
}
ENERGIES = {
    "plain": Energy(0.1),
    "encoder": Energy(0.1, encoder_weight=3.0),
    "hinge, some under T": Energy(0.1, 10.0, 0.3),
    "hinge, all under T": Energy(0.1, 10.0, 5.0, encoder_weight=2.0),
    "hinge, none under T": Energy(0.1, 10.0, 1e-3),
}


@pytest.fixture(params=DECODERS.values(), ids=DECODERS.keys())
def decoder(request) -> Decoder:
    return request.param().double()


@pytest.fixture(params=ENERGIES.values(), ids=ENERGIES.keys())
def objective(request, decoder: Decoder) -> Objective:
    inputs = torch.randn(SAMPLES, INPUT_DIM, dtype=torch.float64)
    prediction = torch.rand(SAMPLES, CODE_DIM, dtype=torch.float64)
    return request.param.bind(decoder, inputs, prediction)


def random_codes() -> Tensor:
    return torch.rand(SAMPLES, CODE_DIM, dtype=torch.float64)


def smooth_value(objective: Objective, codes: Tensor) -> Tensor:
    terms = objective.terms(codes)
    return sum(terms.values()) - terms["sparsity"]


def test_gradient_equals_autograd(objective: Objective):
    codes = random_codes().requires_grad_()
    (expected,) = torch.autograd.grad(smooth_value(objective, codes), codes)
    found = objective.gradient(codes.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradient_equals_finite_differences(objective: Objective):
    codes, step = random_codes(), 1e-6
    found = objective.gradient(codes)
    with torch.no_grad():
        for index in [(0, 0), (3, 2), (8, 5)]:
            shift = torch.zeros_like(codes)
            shift[index] = step
            rise = smooth_value(objective, codes + shift) - smooth_value(objective, codes - shift)
            assert float(found[index]) == pytest.approx(
                float(rise) / (2 * step), rel=1e-5, abs=1e-7
            )


def test_gradient_works_in_inference_mode(objective: Objective):
    codes = random_codes()
    expected = objective.gradient(codes)
    with torch.inference_mode():
        torch.testing.assert_close(objective.gradient(codes.clone()), expected)


def test_value_is_the_formula(decoder: Decoder):
    inputs, prediction = torch.randn(SAMPLES, INPUT_DIM).double(), random_codes()
    codes = random_codes()
    energy = Energy(0.2, 7.0, 0.4, 3.0)
    expected = 0.0
    for x, z, z_e in zip(inputs, codes, prediction):
        expected += ((x - decoder(z[None])[0].detach()) ** 2).sum() / INPUT_DIM
        expected += 0.2 * z.sum() + 3.0 * ((z - z_e) ** 2).sum() / CODE_DIM
    for component in codes.T:
        variance = ((component - component.mean()) ** 2).sum() / (SAMPLES - 1)
        expected += 7.0 * max(0.4 - math.sqrt(variance), 0) ** 2
    found = energy.bind(decoder, inputs, prediction).value(codes).detach()
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0, 7.7])
def test_hinge_gradient_is_zero_where_a_component_is_constant(dtype, constant):
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM).to(dtype)
    inputs = torch.randn(250, INPUT_DIM, dtype=dtype)
    codes = torch.rand(250, CODE_DIM, dtype=dtype)
    codes[:, 2] = constant
    with_hinge = Energy(0.1, 10.0, 5.0).bind(decoder, inputs).gradient(codes)
    without = Energy(0.1).bind(decoder, inputs).gradient(codes)
    assert torch.equal(with_hinge[:, 2], without[:, 2])
    assert (with_hinge[:, 0] != without[:, 0]).any()


def test_hinge_gradient_is_that_of_eq_12():
    codes = random_codes()
    deviation, mean = codes.std(0), codes.mean(0)
    expected = -(2 * 10.0 / (SAMPLES - 1)) * ((5.0 - deviation) / deviation) * (codes - mean)
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM).double()
    inputs = torch.randn(SAMPLES, INPUT_DIM).double()
    found = Energy(0.1, 10.0, 5.0).bind(decoder, inputs).gradient(codes)
    plain = Energy(0.1).bind(decoder, inputs).gradient(codes)
    torch.testing.assert_close(found - plain, expected)


def test_restricted_gradient_is_the_whole_ones_rows(objective: Objective):
    codes = random_codes()
    expected = objective.gradient(codes).clone()
    first, then = torch.tensor([0, 2, 3, 5, 6, 8]), torch.tensor([1, 2, 5])
    smaller = objective.restrict(first, codes[[1, 4, 7]])
    torch.testing.assert_close(smaller.gradient(codes[first]), expected[first])
    smallest = smaller.restrict(then, codes[first][[0, 3, 4]])
    torch.testing.assert_close(smallest.gradient(codes[first][then]), expected[first][then])


def test_prox_is_the_proximal_step():
    objective = Energy(0.5).bind(LinearDecoder(3, 4), torch.zeros(1, 4))
    point, grid = torch.tensor([[1.0, 0.2, -3.0]]), torch.linspace(0, 3, 30_001)
    for value, shrunk in zip(point[0], objective.prox(point, 2 * 0.4)[0]):
        cost = 0.5 * (grid - value) ** 2 + 2 * 0.4 * 0.5 * grid
        assert float(shrunk) == pytest.approx(float(grid[cost.argmin()]), abs=2e-4)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["sparsity_weight", "variance_weight", "variance_threshold", "encoder_weight"]
)
def test_weights_must_be_finite_and_not_negative(name: str, value: float):
    settings = {"sparsity_weight": 0.1, name: value}
    with pytest.raises(SettingError, match=rf"model\.energy\.{name}={value} must be"):
        Energy(**settings)


def test_what_does_not_fit_together_is_refused():
    decoder, inputs = LinearDecoder(3, 4), torch.zeros(1, 4)
    with pytest.raises(SettingError, match="needs an encoder"):
        Energy(0.1, encoder_weight=1.0).bind(decoder, inputs)
    with pytest.raises(SettingError, match="at least 2 samples"):
        Energy(0.1, variance_weight=1.0).bind(decoder, inputs)
    for shape in ((1, 1), (3,), (2, 3)):
        with pytest.raises(InputError, match=r"encoder of shape .* give codes of shape \(1, 3\)"):
            Energy(0.1, encoder_weight=1.0).bind(decoder, inputs, torch.zeros(shape))
    with pytest.raises(SettingError, match=r"sparsity_weight is a tensor of shape \(3, 1\)"):
        Energy(torch.zeros(3, 1))


def test_half_precision_is_raised_to_float32():
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM).bfloat16()
    inputs = torch.randn(SAMPLES, INPUT_DIM).bfloat16()
    prediction = torch.rand(SAMPLES, CODE_DIM).bfloat16()
    objective = Energy(0.1, 1.0, 0.5, 1.0).bind(decoder, inputs, prediction)
    assert objective.gradient(torch.rand(SAMPLES, CODE_DIM)).dtype == torch.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearDecoder(CODE_DIM, INPUT_DIM, has_bias=True),
        lambda: MultiLayerDecoder(CODE_DIM, [10], INPUT_DIM),
    ],
)
def test_half_precision_is_raised_before_anything_is_multiplied(make):
    decoder, energy = make().bfloat16(), Energy(0.1, 1.0, 0.5, 1.0)
    inputs = torch.randn(SAMPLES, INPUT_DIM).bfloat16()
    prediction, codes = torch.rand(SAMPLES, CODE_DIM).bfloat16(), torch.rand(SAMPLES, CODE_DIM)
    exact = energy.bind(copy.deepcopy(decoder).float(), inputs.float(), prediction.float())
    found = energy.bind(decoder, inputs, prediction)
    for one, other in zip(found.energies_and_gradient(codes), exact.energies_and_gradient(codes)):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
