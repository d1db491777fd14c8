"""The adaptive solver: same minima as FISTA, sooner, and never uphill."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from hydra.utils import instantiate
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from sparse_lightning import reconstruction
from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.errors import SettingError
from sparse_lightning.least_squares import LinearLeastSquares
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.smooth import largest_eigenvalue_bound
from sparse_lightning.solvers import FISTA, Adaptive


class Softplus(Decoder):
    """A decoder of a user's own, whose curvature nobody wrote down."""

    def __init__(self) -> None:
        super().__init__()
        self.code_dim, self.input_dim = 12, 30
        self.layers = nn.Sequential(nn.Linear(12, 20), nn.Softplus(), nn.Linear(20, 30))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


DECODERS = {
    "linear": lambda: LinearDecoder(12, 30),
    "one hidden layer": lambda: MultiLayerDecoder(12, [24], 30),
    "one wide hidden layer": lambda: MultiLayerDecoder(12, [80], 30),
    "two hidden layers": lambda: MultiLayerDecoder(12, [24, 18], 30),
    "a user's own": Softplus,
}
ENERGIES = {
    "plain": Energy(0.02),
    "encoder": Energy(0.02, encoder_weight=1.0),
    "hinge": Energy(0.02, 10.0, 0.5, 5.0),
    "strong hinge, no encoder": Energy(0.02, 100.0, 2.0),
}


def problem(decoder: str, energy: Energy, growth: float = 4.0) -> tuple[Objective, Tensor]:
    """Inputs that a decoder of that kind made, and a decoder that has grown as in training."""
    made = DECODERS[decoder]().double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(growth)
        codes = torch.rand(40, 12).double() * (torch.rand(40, 12) < 0.3)
        inputs = made(codes) + 0.1 * torch.randn(40, 30).double()
    return energy.bind(made, inputs, codes), torch.rand(40, 12).double()


def energy_of(objective: Objective, codes: Tensor) -> float:
    return float(objective.value(codes).detach())


@pytest.mark.parametrize("energy", ["plain", "encoder"])
def test_reaches_the_minimum_of_convex_energies(energy):
    objective, initial = problem("linear", ENERGIES[energy])
    step = 0.5 / objective.curvature(initial).upper
    best = energy_of(objective, FISTA(step, 3_000, 0.0)(objective, initial).codes)
    codes = Adaptive(200, 1e-9)(objective, initial).codes
    assert energy_of(objective, codes) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)
def test_ends_at_a_fixed_point_of_the_proximal_step(energy):
    objective, initial = problem("linear", energy)
    codes = Adaptive(3_000, 1e-9)(objective, initial).codes
    step = 1 / objective.curvature(codes).upper
    residual = codes - objective.shrink(codes - step * objective.gradient(codes), step)
    assert float(residual.abs().max()) < 1e-7


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("start", ["random", "zero"])
def test_no_higher_than_the_paper_solver(decoder, energy, start):
    """From the same start, judged by the energy, with FISTA's best of three constant steps."""
    objective, initial = problem(decoder, energy)
    if start == "zero":
        initial = torch.zeros_like(initial)
    upper = objective.curvature(initial).upper
    paper = min(
        energy_of(objective, FISTA(step / upper, 200, 1e-3)(objective, initial).codes)
        for step in (0.1, 0.3, 1.0)
    )
    ours = energy_of(objective, Adaptive()(objective, initial).codes)
    # Random decoders with hidden layers have many minima, and each solver finds another.
    slack = 1e-6 if decoder == "linear" and not energy.has_hinge else 0.3
    assert ours <= paper * (1 + slack)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("growth", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("weight", [0.0, 1e-4, 10.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_uphill(decoder, growth, weight, dtype):
    for variance_weight, encoder_weight in [(0.0, 0.0), (0.0, 100.0), (1e3, 1.0)]:
        energy = Energy(weight, variance_weight, 0.5, encoder_weight)
        objective, initial = problem(decoder, energy, growth)
        objective = energy.bind(
            objective.decoder.to(dtype), objective.inputs.to(dtype), initial.to(dtype)
        )
        initial = initial.to(dtype)
        kept = initial.clone()
        codes = Adaptive(30)(objective, initial).codes
        assert torch.equal(initial, kept)
        assert bool((codes >= 0).all())
        assert energy_of(objective, codes) <= energy_of(objective, initial) * (1 + 1e-6)


def test_samples_do_not_know_of_each_other():
    """Without a hinge a batch is as many problems; leaving the batch changes no other's codes."""
    objective, initial = problem("linear", ENERGIES["encoder"])
    together = Adaptive(100, 1e-3)(objective, initial)
    assert len(together.iterations.unique()) > 1
    for i in (0, 7, 39):
        rows = torch.tensor([i])
        alone = objective.energy.bind(
            objective.decoder, objective.inputs[rows], objective.attraction.centre[rows]
        )
        found = Adaptive(100, 1e-3)(alone, initial[rows])
        torch.testing.assert_close(found.codes, together.codes[rows], rtol=1e-9, atol=1e-11)
        assert int(found.iterations) == int(together.iterations[i])


def test_equals_positive_lasso_of_scikit_learn():
    decoder, inputs = LinearDecoder(20, 40).double(), torch.randn(15, 40).double()
    weight = 0.02
    objective = Energy(weight).bind(decoder, inputs)
    codes = Adaptive(2_000, 1e-12)(objective, torch.zeros(15, 20).double()).codes
    lasso = Lasso(alpha=weight / 2, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    atoms = decoder.weight.detach().numpy()
    theirs = np.stack([lasso.fit(atoms, x).coef_ for x in inputs.numpy()])
    np.testing.assert_allclose(codes, theirs, atol=1e-7)


def test_zero_codes_that_stay_zero_have_converged():
    objective = Energy(100.0).bind(LinearDecoder(4, 6), torch.randn(5, 6))
    solution = Adaptive()(objective, torch.zeros(5, 4))
    assert solution.converged.all()
    assert (solution.iterations == 1).all()
    assert (solution.codes == 0).all()


@pytest.mark.parametrize("rank", [1, 5, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalue_bound(rank, dtype):
    factor = torch.randn(60, rank, dtype=dtype) * torch.logspace(0, -3, rank, dtype=dtype)
    matrix = 1e-3 * factor @ factor.T
    largest = float(torch.linalg.eigvalsh(matrix.double())[-1])
    assert largest <= largest_eigenvalue_bound(matrix) <= largest * 60 ** (1 / 64) * 1.001
    assert largest_eigenvalue_bound(torch.zeros(4, 4)) == 0
    # Atoms that weight decay leaves nothing of.
    matrix[20:] *= 1e-15
    matrix[:, 20:] *= 1e-15
    largest = float(torch.linalg.eigvalsh(matrix.double())[-1])
    assert largest <= largest_eigenvalue_bound(matrix) <= largest * 60 ** (1 / 64) * 1.001


@pytest.mark.parametrize("threshold", [0.1, 1.0])
def test_curvature_bounds_the_smooth_part(threshold):
    """f(y) ≤ f(x) + ∇f(x)(y − x) + L/2 ‖y − x‖², near and far, on both sides of the threshold."""
    objective, _ = problem("linear", Energy(0.0, 50.0, threshold, 1.0))
    bend = objective.curvature(torch.zeros(40, 12).double())
    assert bend.is_bound
    for size in (1e-3, 0.1, 1.0, 10.0):
        x = torch.randn(40, 12).double() * torch.rand(12).double() * threshold * 2
        step = size * torch.randn(40, 12).double()
        slope = (objective.gradient(x) * step).sum()
        bound = objective.value(x) + slope + bend.upper / 2 * step.square().sum()
        assert float(objective.value(x + step).detach()) <= float(bound.detach()) * (1 + 1e-9)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_an_outset_is_value_gradient_and_curvature(decoder, energy):
    objective, codes = problem(decoder, ENERGIES[energy])
    before = codes.clone()
    outset = objective.outset(codes)
    torch.testing.assert_close(outset.values, objective.comparable(codes))
    torch.testing.assert_close(outset.gradient, objective.gradient(codes))
    assert outset.curvature == objective.curvature(codes)
    assert torch.equal(codes, before)


@pytest.mark.parametrize("decoder", ["one hidden layer", "two hidden layers", "a user's own"])
def test_curvature_is_estimated(decoder):
    """Within a factor of the largest eigenvalue of the Hessian that autograd gives."""
    objective, initial = problem(decoder, Energy(0.0, encoder_weight=1.0))
    estimate = objective.curvature(initial).upper
    pull = objective.attraction.curvature / 2

    def hessian(code: Tensor, target: Tensor) -> Tensor:
        def value(code: Tensor) -> Tensor:
            error = (objective.decoder(code) - target).square().mean()
            return error + pull * code.square().sum()

        return torch.autograd.functional.hessian(value, code)

    hessians = torch.stack(list(map(hessian, initial, objective.inputs)))
    largest = torch.linalg.eigvalsh(hessians)[:, -1]
    assert float(largest.median()) / 2 < estimate < 2 * float(largest.max())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)
def test_comparable_differs_from_the_energy_by_a_constant(decoder, energy):
    objective, _ = problem(decoder, energy)
    differences = []
    for _ in range(3):
        codes = torch.rand(40, 12).double()
        differences.append(objective.value(codes).detach() - objective.comparable(codes).sum())
    torch.testing.assert_close(differences[0], differences[1])
    torch.testing.assert_close(differences[0], differences[2])
    value, gradient = objective.comparable_and_gradient(codes)
    torch.testing.assert_close(value, objective.comparable(codes), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, objective.gradient(codes), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", range(6))
def test_on_digits_no_higher_than_the_paper_solver(compose, mnist_root, family, level):
    """All families, every λ of the grid, before and after learning, judged in float64."""
    config = compose(
        f"model={family}",
        "solver=adaptive",
        f"sparsity_level={level}",
        f"data.root={mnist_root}",
        "logger=none",
    )
    data, model = instantiate(config.data), instantiate(config.model)
    data.prepare_data()
    data.setup()
    batches = [batch.inputs for _, batch in zip(range(40), data.train_dataloader())]
    paper = FISTA(config.step_size, 200, 1e-3)
    require_no_higher(model, batches[0], paper)
    optimizer, _ = model.optimizer_settings.build(model.decoder, model.encoder)
    for inputs in batches[1:]:
        codes = model.infer(inputs).codes
        loss = (model.decoder(codes) - inputs).square().mean()
        if model.encoder is not None:
            loss = loss + (model.encoder(inputs) - codes).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if model.constraint is not None:
            model.constraint(model.decoder)
    require_no_higher(model, batches[0], paper)


def require_no_higher(model: SparseAutoencoder, inputs: Tensor, paper: FISTA) -> None:
    with torch.no_grad():
        prediction = None if model.encoder is None else model.encoder(inputs)
        objective = model.energy.bind(model.decoder, inputs, prediction)
        start = torch.zeros(len(inputs), 128) if prediction is None else prediction
        found = [solver(objective, start).codes.double() for solver in (model.solver, paper)]
        exact = model.energy.bind(
            copy.deepcopy(model.decoder).double(),
            inputs.double(),
            None if prediction is None else prediction.double(),
        )
        ours, theirs = (float(exact.value(codes)) for codes in found)
    assert ours <= theirs * (1 + 1e-6)


def test_settings_are_checked():
    with pytest.raises(SettingError, match=r"solver\.max_iterations=0"):
        Adaptive(0)
    with pytest.raises(SettingError, match=r"solver\.tolerance=-1"):
        Adaptive(10, -1)


def test_where_no_sample_stops_early_the_gram_form_comes_before_all_steps(monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("two products where one will do")

    monkeypatch.setattr(reconstruction, "MOST_SPREAD", 0.0)  # no leaps
    decoder = MultiLayerDecoder(12, [16], 90)
    objective = Energy(0.02).bind(decoder, torch.randn(50, 90))
    for name in ("gradient", "value", "value_and_gradient"):
        monkeypatch.setattr(LinearLeastSquares, name, fail)
    assert (Adaptive(100, 0.0)(objective, torch.rand(50, 12)).iterations == 100).all()
    with pytest.raises(AssertionError):
        Adaptive(100, 1e-4)(objective, torch.rand(50, 12))
