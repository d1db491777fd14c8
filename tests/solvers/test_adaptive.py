"""The adaptive solver: never above its start, and no higher than the paper's solver."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FAMILIES
from hydra.utils import instantiate
from problems import DECODERS, ENERGIES, Problem, literal_energy, problem
from torch import Tensor

from sparse_lightning.energy import Energy, Objective
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.solvers import FISTA, ISTA, Adaptive, Solution, proximal_newton
from sparse_lightning.solvers.proximal_gradient import State

HINGES = {"no hinge": (0.0, 0.0), "encoder": (0.0, 100.0), "hinge": (1e3, 1.0)}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("growth", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_uphill(decoder: str, growth: float, dtype: torch.dtype):
    for weight in (0.0, 1e-4, 10.0, 1e6):
        for variance_weight, encoder_weight in HINGES.values():
            energy = Energy(weight, variance_weight, 0.5, encoder_weight)
            given = problem(decoder, energy, count=10, growth=growth).to(dtype)
            kept = given.start.clone()
            for limit in (1, 12):
                codes = Adaptive(limit)(given.objective, given.start).codes
                assert torch.equal(given.start, kept)
                assert codes.dtype == dtype
                assert (codes >= 0).all()
                before, after = (exact_energy(given, z) for z in (kept, codes))
                assert after <= before * (1 + (1e-5 if dtype == torch.float32 else 1e-9))


def exact_energy(given: Problem, codes: Tensor) -> float:
    """In float64, of a problem in any precision."""
    exact = Problem(
        given.energy, copy.deepcopy(given.decoder), given.inputs, given.encoder_codes, given.start
    ).to(torch.float64)
    return float(literal_energy(exact, codes.double()).detach())


@pytest.mark.parametrize("energy", ["DO", "VDL"])
@pytest.mark.parametrize("decoder", ["one hidden layer", "a user's own"])
def test_iterations_that_get_lost_lose_nothing(monkeypatch, decoder: str, energy: str):
    """The codes are those from which iterations started: the first, or those of Newton steps."""

    def lost(self: Adaptive, objective: Objective, state: State, step: float | None) -> Solution:
        return Solution(state.codes + 100, state.iterations, state.frozen)

    monkeypatch.setattr(Adaptive, "descend", lost)
    given = problem(decoder, ENERGIES[energy])
    objective, expected = given.objective, given.start
    if decoder == "one hidden layer" and energy == "DO":
        # All units are active.
        torch.nn.init.constant_(given.decoder.hidden[0].bias, 20.0)
        objective = given.objective
        expected = proximal_newton.descend(objective, given.start, 100).codes
        assert not torch.equal(expected, given.start)
    assert torch.equal(Adaptive(200)(objective, given.start).codes, expected)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_no_higher_than_the_paper_solver(decoder: str, energy: str):
    """From one start, with FISTA's best of three steps, judged by the formula."""
    given = problem(decoder, ENERGIES[energy])
    objective, start = given.objective, torch.zeros_like(given.start)
    found = [FISTA(step)(objective, start).codes for step in (0.1, 0.3, 1.0)]
    paper = min(float(literal_energy(given, codes).detach()) for codes in found)
    ours = float(literal_energy(given, Adaptive()(objective, start).codes).detach())
    # Elsewhere there are many minima, and each solver finds another.
    is_convex = decoder == "linear" and objective.is_separable
    assert ours <= paper * (1 + (1e-6 if is_convex else 0.3))


def test_components_that_no_sample_uses_do_not_shorten_steps():
    """The hinge is a wall there, and the first L would fall from it for a hundred iterations."""
    given = problem("one hidden layer", Energy(0.01, 10.0, 0.5, 1.0))
    start = torch.zeros_like(given.start)
    soon, late = (
        float(given.objective.value(Adaptive(limit)(given.objective, start).codes))
        for limit in (25, 500)
    )
    assert soon < 1.05 * late


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_without_a_gradient_holds_no_other_back(dtype: torch.dtype):
    """Its hidden units are all inactive: the hinge alone moves it, and nothing tells how far."""
    given = problem("one hidden layer", Energy(0.02, 10.0, 0.5), growth=1.0)
    with torch.no_grad():
        bias = given.decoder.hidden[0].bias
        bias.copy_(-bias.abs() - 0.1)
    given = given.to(dtype)
    still = (given.objective.without_hinge().gradient(given.start) == 0).all(1)
    assert still[0]
    assert not still.all()
    found = Adaptive(200)(given.objective, given.start).codes
    before, after = (float(given.objective.energies(z).sum()) for z in (given.start, found))
    assert after < 0.5 * before


def test_a_sample_that_starts_at_rest_takes_no_step_to_infinity():
    """Its data are rebuilt exactly, and λ alone moves it."""
    given = problem("a user's own", Energy(0.01))
    inputs = given.decoder(given.start).detach()
    objective = given.energy.bind(given.decoder, inputs, given.encoder_codes)
    found = Adaptive(300, 1e-8)(objective, given.start).codes
    other = FISTA(0.02, 5000, 1e-9)(objective, given.start).codes
    torch.testing.assert_close(
        objective.energies(found), objective.energies(other), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_samples_do_not_know_of_each_other(monkeypatch, decoder: str):
    """Without a hinge a batch is as many problems, whoever leaves it when.

    But for Newton steps, which have one Hessian for all samples.
    """
    monkeypatch.setattr(proximal_newton, "applies", lambda *_: False)
    given = problem(decoder, ENERGIES["SDL, WDL, none"])
    objective, solver = given.objective, Adaptive(100, 1e-3)
    together = solver(objective, given.start)
    assert len(together.iterations.unique()) > 1
    for i in (0, 9, 39):
        own = torch.tensor([i])
        alone = solver(objective.restrict(own, given.start), given.start[own])
        torch.testing.assert_close(alone.codes, together.codes[own], rtol=1e-6, atol=1e-8)
        assert int(alone.iterations) == int(together.iterations[i])


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
    learn(model, batches[1:])
    require_no_higher(model, batches[0], paper)


def learn(model: SparseAutoencoder, batches: list[Tensor]) -> None:
    """A step of training for each batch, without a trainer."""
    optimizer, _ = model.optimizer_settings.build(model.decoder, model.encoder)
    for inputs in batches:
        codes = model.infer(inputs).codes
        loss = (model.decoder(codes) - inputs).square().mean()
        if model.encoder is not None:
            loss = loss + (model.encoder(inputs) - codes).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if model.constraint is not None:
            model.constraint(model.decoder)


@torch.no_grad()
def require_no_higher(model: SparseAutoencoder, inputs: Tensor, paper: FISTA) -> None:
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


@pytest.mark.parametrize("decoder", ["one hidden layer", "a user's own"])
@pytest.mark.parametrize("solver", [FISTA(0.3, 100, 0.0), ISTA(0.3, 100, 0.0)])
def test_networks_in_float32(decoder, solver):
    given = problem(decoder, ENERGIES["SDL, WDL, none"], growth=1.0)
    expected = solver(given.objective, given.start).codes
    single = given.to(torch.float32)
    found = solver(single.objective, single.start).codes
    assert exact_energy(single, found) == pytest.approx(exact_energy(single, expected), rel=1e-4)
