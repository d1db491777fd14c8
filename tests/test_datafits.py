"""Data fits against autograd and against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from problems import CODE_DIM, DECODERS, INPUT_DIM
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sparse_lightning.datafits import (
    AutogradDataFit,
    DataFit,
    LeastSquares,
    QuadraticDataFit,
    ReluNetworkDataFit,
    largest_eigenvalue_bound,
    with_normal_squares,
)
from sparse_lightning.decoders import Decoder, MultiLayerDecoder
from sparse_lightning.errors import InputError


def datafits_of(decoder: Decoder, inputs: Tensor) -> list[DataFit]:
    """All that can stand for this decoder: by autograd, by products with weights, by Gram form."""
    found = [AutogradDataFit(decoder, inputs), decoder.datafit(inputs)]
    if isinstance(found[1], QuadraticDataFit):
        found.append(LeastSquares(inputs, decoder.weight.detach()))
    if isinstance(found[1], ReluNetworkDataFit):
        gram_form = QuadraticDataFit.of(inputs, decoder.output.weight.detach())
        found.append(replace(found[1], top=gram_form))
    return found


def test_a_decoder_that_returns_another_shape_is_refused():
    """(n, 1, d) less (n, d) would be (n, n, d): each code against all inputs."""

    class Channels(Decoder):
        code_dim, input_dim = 4, 6

        def forward(self, codes: Tensor) -> Tensor:
            return codes.sum(-1)[:, None, None].expand(-1, 1, 6)

    datafit, codes = Channels().datafit(torch.randn(3, 6)), torch.rand(3, 4)
    for called in (datafit.value, datafit.value_and_gradient):
        with pytest.raises(InputError, match=r"Channels .* in the shape \(3, 1, 6\)"):
            called(codes)


def literal(decoder: Decoder, inputs: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    codes = codes.clone().requires_grad_()
    values = (decoder(codes) - inputs).square().mean(1)
    return values.detach(), torch.autograd.grad(values.sum(), codes)[0]


@pytest.mark.parametrize("name", DECODERS)
def test_value_and_gradient_are_those_of_autograd(name: str):
    decoder = DECODERS[name]().double()
    inputs, codes = torch.randn(9, INPUT_DIM).double(), torch.randn(9, CODE_DIM).double()
    values, gradient = literal(decoder, inputs, codes)
    rows = torch.tensor([7, 2, 3])
    for datafit in datafits_of(decoder, inputs):
        found = datafit.value(codes).detach(), datafit.gradient(codes)
        torch.testing.assert_close(found, (values, gradient))
        torch.testing.assert_close(datafit.value_and_gradient(codes), (values, gradient))
        some, few = datafit.restrict(rows), datafit.restrict(rows).restrict(torch.tensor([2]))
        found = some.value_and_gradient(codes[rows])
        torch.testing.assert_close(found, (values[rows], gradient[rows]))
        torch.testing.assert_close(few.gradient(codes[3:4]), gradient[3:4])


@pytest.mark.parametrize("name", DECODERS)
def test_a_prepared_data_fit_is_the_one_it_was(name: str):
    decoder = DECODERS[name]().double()
    inputs, codes = torch.randn(9, INPUT_DIM).double(), torch.randn(9, CODE_DIM).double()
    for datafit in datafits_of(decoder, inputs):
        prepared = datafit.prepared_for(1_000)
        expected = literal(decoder, inputs, codes)
        torch.testing.assert_close(prepared.value_and_gradient(codes), expected)
        assert prepared.prepared_for(1_000) is prepared


def multiplications(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("samples", [1, 10, 500])
@pytest.mark.parametrize("width", [5, 30, 50])
def test_the_gram_form_is_made_where_it_pays(samples: int, width: int):
    """And nowhere else: multiplications are counted as they are done."""
    inputs, weight = torch.rand(samples, 20), torch.rand(20, width)
    codes = torch.rand(samples, width)
    plain, gram_form = LeastSquares(inputs, weight), QuadraticDataFit.of(inputs, weight)
    preparing = multiplications(lambda: QuadraticDataFit.of(inputs, weight))
    each, each_then = (multiplications(lambda f=f: f.gradient(codes)) for f in (plain, gram_form))
    for gradients in (0, 1, 2, 30, 1_000):
        pays = preparing + gradients * each_then < gradients * each
        assert (plain.prepared_for(gradients) is not plain) is pays


def test_lipschitz_bounds_the_largest_eigenvalue_of_the_hessian():
    weight = 3 * torch.randn(INPUT_DIM, CODE_DIM).double()
    datafit = QuadraticDataFit.of(torch.randn(9, INPUT_DIM).double(), weight)
    largest = float(torch.linalg.matrix_norm(weight, 2).square() * 2 / INPUT_DIM)
    assert largest <= datafit.lipschitz() <= 1.1 * largest


@pytest.mark.parametrize("rank", [1, 5, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalue_bound(rank: int, dtype: torch.dtype):
    factor = torch.randn(60, rank, dtype=dtype) * torch.logspace(0, -3, rank, dtype=dtype)
    matrix = 1e-3 * factor @ factor.T
    faded = matrix.clone()
    # Atoms that weight decay leaves nothing of.
    faded[20:] *= 1e-15
    faded[:, 20:] *= 1e-15
    for given in (matrix, faded):
        largest = float(torch.linalg.eigvalsh(given.double())[-1])
        assert largest <= largest_eigenvalue_bound(given) <= largest * 60 ** (1 / 64) * 1.001
    assert largest_eigenvalue_bound(torch.zeros(4, 4)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_what_is_kept_are_normal_numbers(dtype: torch.dtype):
    tiny = torch.finfo(dtype).tiny
    numbers = torch.logspace(-320, 3, 400, dtype=torch.float64).to(dtype)
    numbers = torch.cat((numbers, -numbers))
    kept = with_normal_squares(numbers)
    products = torch.outer(kept, kept).abs()
    assert ((products == 0) | (products >= tiny)).all()
    is_kept = kept != 0
    assert torch.equal(kept[is_kept], numbers[is_kept])
    assert (numbers[~is_kept].abs() <= 1.01 * tiny**0.5).all()
    assert with_normal_squares(torch.tensor([torch.nan, torch.inf])).isfinite().logical_not().all()


def network(
    hidden_dims: list[int], bias: float, count: int = 9
) -> tuple[MultiLayerDecoder, Tensor, Tensor]:
    """The larger the bias, the more hidden units are active."""
    decoder = MultiLayerDecoder(CODE_DIM, hidden_dims, INPUT_DIM).double()
    with torch.no_grad():
        for layer in decoder.hidden:
            layer.bias.add_(bias)
    return decoder, torch.randn(count, INPUT_DIM).double(), torch.rand(count, CODE_DIM).double()


def mean_hessian(decoder: Decoder, inputs: Tensor, codes: Tensor) -> Tensor:
    """Of the samples' data fits, by autograd, (l, l)."""

    def value(code: Tensor, target: Tensor) -> Tensor:
        return (decoder(code) - target).square().mean()

    hessian = torch.func.jacrev(torch.func.jacrev(value))
    return torch.func.vmap(hessian)(codes, inputs).mean(0).detach()


@pytest.mark.parametrize("hidden_dims", [[24], [60, 24]])
@pytest.mark.parametrize("bias_of_some", [5.0, -5.0])
def test_of_samples_that_share_all_units_the_average_hessian_is_exact(
    hidden_dims: list[int], bias_of_some: float
):
    """Some of the units are active in all samples, or in none."""
    decoder, inputs, codes = network(hidden_dims, 5.0)
    with torch.no_grad():
        decoder.hidden[0].bias[::3] = bias_of_some
    found = decoder.datafit(inputs).average_hessian(codes)
    torch.testing.assert_close(found, mean_hessian(decoder, inputs, codes))


@pytest.mark.parametrize(("hidden_dims", "most"), [([400], 0.02), ([400, 200], 0.1)])
def test_the_average_hessian_of_samples_that_share_most_units(hidden_dims: list[int], most: float):
    """Of the units of the last hidden layer it knows how far samples differ, of others the mean."""
    decoder, inputs, codes = network(hidden_dims, 0.4, count=300)
    expected = mean_hessian(decoder, inputs, codes)
    found = decoder.datafit(inputs).average_hessian(codes)
    assert 1e-6 < float((found - expected).norm() / expected.norm()) < most


def test_samples_that_share_few_units_have_no_average_hessian():
    decoder, inputs, codes = network([60], 0.0)
    assert decoder.datafit(inputs).average_hessian(10 * torch.randn_like(codes)) is None
