"""Every solver on every objective, against literal loops and brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import (
    DECODERS,
    ENERGIES,
    PENALTIES,
    literal_energy,
    literal_solution,
    problem,
)
from sklearn.linear_model import Lasso

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.solvers import (
    FISTA,
    ISTA,
    Adaptive,
    fista,
    gram_numba,
    proximal_gradient,
    proximal_newton,
)
from sparse_lightning.solvers.adaptive import curvature_along_gradient

SOLVERS = {
    "ISTA": ISTA(0.3, 15, 3e-2),
    "FISTA": FISTA(0.3, 15, 3e-2),
    "FISTA, all iterations": FISTA(0.3, 15, 0.0),
    "FISTA, literal": FISTA(0.3, 15, 3e-2, safeguard=False),
    "FISTA, step too large": FISTA(3.0, 15, 3e-2),
    "Adaptive, all iterations": Adaptive(15, 0.0),
    "Adaptive": Adaptive(15, 3e-2),
}
SAMPLES = 5
EACH = list(itertools.product(SOLVERS, DECODERS, ENERGIES, ["l1", *PENALTIES]))
# Of the penalties other than l1 some pairs of each are fast tests.
FAST = {"FISTA", "Adaptive"}, {"linear", "one hidden layer"}, {"SDL, WDL, none", "VDL"}
NAMES = [
    pytest.param(*names, marks=[] if is_fast or names[3] == "l1" else [pytest.mark.slow])
    for names in EACH
    for is_fast in [all(name in fast for name, fast in zip(names, FAST))]
]


@pytest.mark.parametrize(("solver", "decoder", "energy", "penalty"), NAMES)
def test_equals_the_literal_loop(monkeypatch, solver, decoder, energy, penalty):
    """Compiled or not, with or without Gram form, whoever leaves the batch when."""
    weights = ENERGIES[energy]
    if penalty != "l1":
        weights = replace(weights, penalty=PENALTIES[penalty])
    given = problem(decoder, weights, count=SAMPLES)
    objective, chosen = given.objective, SOLVERS[solver]
    monkeypatch.setattr(proximal_newton, "applies", lambda *_: False)
    monkeypatch.setattr(fista, "FAR_FROM_STABLE", float("inf"))
    # Each sample leaves the batch as soon as it has converged.
    monkeypatch.setattr(
        proximal_gradient, "is_worth_compacting", lambda num_frozen, _: num_frozen > 0
    )
    bound = objective.lipschitz(given.start)
    first = torch.zeros(SAMPLES)
    if bound is not None:
        first = torch.full((SAMPLES,), bound)
    elif isinstance(chosen, Adaptive):
        first = curvature_along_gradient(objective.without_hinge(), given.start).squeeze(1)
    kept = given.start.clone()
    found = chosen(objective, given.start)
    codes, iterations, converged = literal_solution(given, chosen, first, bound is not None)
    assert torch.equal(given.start, kept)
    is_refined = chosen == SOLVERS["Adaptive"] and bound is not None and objective.is_separable
    if is_refined and penalty == "l1":
        # The compiled loops may end by an exact solution over the active atoms.
        assert float(objective.value(found.codes)) <= float(objective.value(codes)) + 1e-4
        return
    torch.testing.assert_close(found.codes, codes, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.iterations, iterations)
    assert torch.equal(found.converged, converged)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("penalty", ["l1", *PENALTIES])
def test_ends_at_a_fixed_point_of_the_proximal_step(penalty, energy):
    weights = ENERGIES[energy]
    if penalty != "l1":
        weights = replace(weights, penalty=PENALTIES[penalty])
    given = problem("linear", weights)
    objective = given.objective
    codes = Adaptive(5_000, 1e-10)(objective, given.start).codes
    assert literal_energy(given, codes) <= literal_energy(given, given.start)
    step = 1 / objective.lipschitz(codes)
    residual = codes - objective.prox(codes - step * objective.gradient(codes), step)
    assert float(residual.abs().max()) < 1e-6


@pytest.mark.parametrize("penalty", ["l1", "signed"])
@pytest.mark.parametrize("solver", [Adaptive(5_000, 1e-10), FISTA(0.05, 20_000, 1e-10)])
@pytest.mark.parametrize("energy", ["DO", "SDL, WDL, none"])
def test_convex_energies_end_at_their_minimum(penalty, solver, energy):
    """scikit-learn's Lasso, with the encoder term as further rows of the regression."""
    weights = ENERGIES[energy]
    if penalty == "signed":
        weights = replace(weights, penalty=PENALTIES["signed"])
    given = problem("linear", weights, count=6)
    found = solver(given.objective, given.start).codes
    code_dim, input_dim = given.decoder.code_dim, given.inputs.shape[1]
    pull = (weights.encoder_weight / code_dim) ** 0.5
    atoms = given.decoder.weight.detach() / input_dim**0.5
    rows = torch.cat([atoms, pull * torch.eye(code_dim).double()])
    targets = torch.cat([given.inputs / input_dim**0.5, pull * given.encoder_codes], dim=1)
    lasso = Lasso(
        alpha=weights.sparsity_weight / (2 * len(rows)), positive=penalty == "l1",
        fit_intercept=False, tol=1e-12, max_iter=100_000,
    )  # fmt: skip
    codes = [lasso.fit(rows.numpy(), target.numpy()).coef_ for target in targets]
    lowest = literal_energy(given, torch.from_numpy(np.array(codes))).detach()
    torch.testing.assert_close(literal_energy(given, found).detach(), lowest, rtol=1e-6, atol=0)


@pytest.mark.parametrize("solver", [FISTA(0.02, 100_000, 1e-13), Adaptive(5_000, 1e-13)])
def test_equals_positive_lasso_of_scikit_learn(solver):
    """(1/2d)‖x − Wz‖² + α‖z‖₁ is half of our energy where α = λ/2."""
    decoder, inputs, weight = LinearDecoder(20, 40).double(), torch.randn(15, 40).double(), 0.02
    with torch.no_grad():
        decoder.weight.mul_(3)
    objective = Energy(weight).bind(decoder, inputs)
    codes = solver(objective, torch.zeros(15, 20).double()).codes
    lasso = Lasso(alpha=weight / 2, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    atoms = decoder.weight.detach().numpy()
    theirs = np.stack([lasso.fit(atoms, x).coef_ for x in inputs.numpy()])
    np.testing.assert_allclose(codes, theirs, atol=1e-6)
    assert 0.1 < float((codes == 0).double().mean()) < 0.95


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("solver", [FISTA(0.3, 45), Adaptive(45)])
def test_seldom_looks_change_nothing(monkeypatch, decoder, energy, solver):
    """Accelerators tell the host who has converged every ten iterations, the CPU at each."""
    monkeypatch.setattr(gram_numba, "applies", lambda *_: False)
    given = problem(decoder, ENERGIES[energy])
    often = solver(given.objective, given.start)
    for every in (4, 10):
        monkeypatch.setattr(proximal_gradient, "looks_every", lambda device, every=every: every)
        seldom = solver(given.objective, given.start)
        # Where the hinge is alone on relus, rounding grows from one iteration to the next.
        torch.testing.assert_close(seldom.codes, often.codes, rtol=1e-6, atol=1e-6)
        assert torch.equal(seldom.iterations, often.iterations)
        assert torch.equal(seldom.converged, often.converged)


@pytest.mark.parametrize("solver", [FISTA(0.5), ISTA(0.5), Adaptive()])
@pytest.mark.parametrize("decoder", DECODERS)
def test_zero_codes_that_stay_zero_have_converged(solver, decoder):
    given = problem(decoder, Energy(1e4))
    solution = solver(given.objective, torch.zeros_like(given.start))
    assert solution.converged.all()
    assert (solution.iterations <= 2).all()
    assert (solution.codes == 0).all()


@pytest.mark.parametrize("solver", [FISTA(0.5), ISTA(0.5), Adaptive()])
@pytest.mark.parametrize("decoder", DECODERS)
def test_an_empty_batch_has_no_codes(solver, decoder):
    given = problem(decoder, Energy(0.1), count=3)
    objective = given.objective.restrict(torch.tensor([], dtype=torch.int64), given.start)
    assert solver(objective, given.start[:0]).codes.shape == (0, 12)


@pytest.mark.parametrize("penalty", ["l1", *PENALTIES])
@pytest.mark.parametrize("solver", [FISTA(0.3, 40), Adaptive(40)])
@pytest.mark.parametrize("decoder", ["linear", "one hidden layer"])
def test_a_start_that_the_penalty_does_not_allow_is_projected(decoder, solver, penalty):
    weights = Energy(0.02, 10.0, 0.5)
    if penalty != "l1":
        weights = replace(weights, penalty=PENALTIES[penalty])
    given = problem(decoder, weights, count=8)
    start = given.start - 0.5
    allowed = start if weights.penalty.is_signed else start.clamp_min(0)
    torch.testing.assert_close(given.objective.prox(start, 0.0), allowed)
    found, expected = (solver(given.objective, codes).codes for codes in (start, allowed))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert weights.penalty.is_signed or (found >= 0).all()


def test_above_the_largest_useful_weight_all_codes_are_zero():
    decoder, inputs = LinearDecoder(20, 40).double(), torch.randn(15, 40).double()
    largest = float((2 / 40 * inputs @ decoder.weight.detach()).max())
    start = torch.zeros(15, 20).double()
    for factor, all_zero in [(1.01, True), (0.99, False)]:
        objective = Energy(factor * largest).bind(decoder, inputs)
        codes = FISTA(1.0, 1_000, 0.0)(objective, start).codes
        assert bool((codes == 0).all()) is all_zero


@pytest.mark.parametrize("kind", [FISTA, ISTA])
def test_settings_are_checked(kind):
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match=r"solver\.step_size="):
            kind(step)
    for solver in (lambda *limits: kind(0.5, *limits), Adaptive):
        with pytest.raises(SettingError, match=r"solver\.max_iterations=0"):
            solver(0)
        with pytest.raises(SettingError, match=r"solver\.tolerance=-1"):
            solver(10, -1)
