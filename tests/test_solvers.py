"""FISTA and ISTA against scikit-learn's positive lasso and a literal reading of the rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.errors import SettingError
from sparse_lightning.solvers import FISTA, ISTA, Adaptive, descent


def literal_solution(
    objective: Objective, initial: Tensor, step: float, limit: int, tolerance: float, fast: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's loop, one sample's rule at a time, nothing leaving the batch."""
    codes, point, t = initial.clone(), initial.clone(), 1.0
    frozen = [False] * len(initial)
    iterations = [limit] * len(initial)
    for iteration in range(1, limit + 1):
        weight = objective.energy.sparsity_weight
        new = torch.relu(point - step * objective.gradient(point) - step * weight)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        extrapolated = new + (t - 1) / t_new * (new - codes) if fast else new.clone()
        for i in range(len(initial)):
            if frozen[i]:
                new[i] = extrapolated[i] = codes[i]
                continue
            change, size = (new[i] - codes[i]).norm(), codes[i].norm()
            if tolerance > 0 and (change < tolerance * size or (change == 0 and size == 0)):
                frozen[i], iterations[i] = True, iteration
                extrapolated[i] = new[i]
        codes, point, t = new, extrapolated, t_new
        if all(frozen):
            break
    return codes, torch.tensor(iterations), torch.tensor(frozen)


def problem(decoder_kind: str, energy: Energy) -> tuple[Objective, Tensor]:
    decoder = {
        "linear": lambda: LinearDecoder(12, 30),
        "one hidden layer": lambda: MultiLayerDecoder(12, [16], 30),
    }[decoder_kind]()
    inputs, prediction = torch.randn(40, 30).double(), torch.rand(40, 12).double()
    # Samples of very different difficulty, so that they converge at different times.
    inputs *= torch.logspace(-2, 1, 40)[:, None].double()
    prediction[::7] = 0
    return energy.bind(decoder.double(), inputs, prediction), prediction


@pytest.mark.parametrize("solver", [FISTA, ISTA])
@pytest.mark.parametrize("decoder", ["linear", "one hidden layer"])
@pytest.mark.parametrize(
    "energy",
    [Energy(0.05), Energy(0.05, encoder_weight=1.0), Energy(0.05, 10.0, 0.5, 5.0)],
    ids=["plain", "encoder", "hinge"],
)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 3e-2])
def test_equals_the_literal_loop(solver, decoder, energy, tolerance):
    objective, initial = problem(decoder, energy)
    kept = initial.clone()
    found = solver(0.5, 60, tolerance)(objective, initial)
    codes, iterations, converged = literal_solution(
        objective, initial, 0.5, 60, tolerance, solver is FISTA
    )
    torch.testing.assert_close(found.codes, codes, rtol=1e-9, atol=1e-11)
    assert torch.equal(found.iterations, iterations)
    assert torch.equal(found.converged, converged)
    assert torch.equal(initial, kept)
    if tolerance == 3e-2:
        assert len(iterations.unique()) > 1, "the test must see samples leave at different times"


@pytest.mark.parametrize("decoder", ["linear", "one hidden layer"])
@pytest.mark.parametrize("energy", [Energy(0.02), Energy(0.02, 3.0, 0.5, 1.0)])
@pytest.mark.parametrize("solver", [FISTA(0.3, 150), Adaptive(150)])
def test_seldom_looks_change_nothing(monkeypatch, decoder, energy, solver):
    """Accelerators tell the host who has converged every ten iterations, the CPU at each."""
    objective, initial = problem(decoder, energy)
    often = solver(objective, initial)
    assert often.iterations.unique().numel() > 1 or not objective.is_separable
    for every in (4, 10):
        monkeypatch.setattr(descent, "looks_every", lambda device, every=every: every)
        seldom = solver(objective, initial)
        torch.testing.assert_close(seldom.codes, often.codes, rtol=1e-9, atol=1e-12)
        assert torch.equal(seldom.iterations, often.iterations)
        assert torch.equal(seldom.converged, often.converged)


def test_zero_codes_that_stay_zero_have_converged():
    objective = Energy(100.0).bind(LinearDecoder(4, 6), torch.randn(5, 6))
    solution = FISTA(0.5)(objective, torch.zeros(5, 4))
    assert solution.converged.all()
    assert (solution.iterations == 1).all()
    assert (solution.codes == 0).all()


@pytest.fixture
def dictionary() -> tuple[LinearDecoder, Tensor]:
    decoder = LinearDecoder(20, 40).double()
    return decoder, torch.randn(15, 40).double()


def stable_step(decoder: LinearDecoder) -> float:
    """One over the largest curvature of the reconstruction term."""
    largest = torch.linalg.matrix_norm(decoder.weight.detach(), ord=2)
    return float(decoder.input_dim / (2 * largest**2))


def test_equals_positive_lasso_of_scikit_learn(dictionary):
    """(1/2d)‖x − Wz‖² + α‖z‖₁ is half of our energy where α = λ/2."""
    decoder, inputs = dictionary
    weight = 0.02
    objective = Energy(weight).bind(decoder, inputs)
    step = stable_step(decoder)
    codes = FISTA(step, 4_000, 0.0)(objective, torch.zeros(15, 20).double()).codes
    lasso = Lasso(alpha=weight / 2, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    atoms = decoder.weight.detach().numpy()
    theirs = np.stack([lasso.fit(atoms, x).coef_ for x in inputs.numpy()])
    ours = float(objective.value(codes).detach())
    assert ours == pytest.approx(
        float(objective.value(torch.from_numpy(theirs)).detach()), rel=1e-6
    )
    np.testing.assert_allclose(codes, theirs, atol=1e-5)
    assert 0.1 < float((codes == 0).double().mean()) < 0.95
    residual = codes - objective.shrink(codes - step * objective.gradient(codes), step)
    assert float(residual.norm()) < 1e-9


def test_above_the_largest_useful_weight_all_codes_are_zero(dictionary):
    decoder, inputs = dictionary
    largest = float((2 / 40 * inputs @ decoder.weight.detach()).max())
    start = torch.zeros(15, 20).double()
    for factor, all_zero in [(1.01, True), (0.99, False)]:
        objective = Energy(factor * largest).bind(decoder, inputs)
        codes = FISTA(stable_step(decoder), 1_000, 0.0)(objective, start).codes
        assert bool((codes == 0).all()) is all_zero


@pytest.mark.parametrize("solver", [FISTA, ISTA])
def test_settings_are_checked(solver):
    for step in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingError, match=r"solver\.step_size="):
            solver(step)
    with pytest.raises(SettingError, match=r"solver\.max_iterations=0"):
        solver(0.5, 0)
    with pytest.raises(SettingError, match=r"solver\.tolerance=-1"):
        solver(0.5, 10, -1)
