"""Proximal Newton steps: where they apply, and that they lead downhill to the minimum."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import CODE_DIM, INPUT_DIM, PENALTIES, Problem
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.solvers import Adaptive, proximal_newton
from sparse_lightning.solvers.proximal_newton import applies, descend

ENERGIES = {"DO": Energy(0.02), "SDL, WDL, none": Energy(0.02, encoder_weight=1.0)}
every_energy = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)


def problem(energy: Energy, bias: float, hidden_dims: tuple[int, ...] = (60,)) -> Problem:
    """The larger the bias, the more hidden units are active, up to all of them."""
    decoder = MultiLayerDecoder(CODE_DIM, hidden_dims, INPUT_DIM).double()
    with torch.no_grad():
        for layer in decoder.hidden:
            layer.bias.add_(bias)
        codes = 2 * torch.rand(50, CODE_DIM).double() * (torch.rand(50, CODE_DIM) < 0.3)
        inputs = decoder(codes) + 0.1 * torch.randn(50, INPUT_DIM).double()
    return Problem(energy, decoder, inputs, codes, torch.rand(50, CODE_DIM).double())


def without_newton(monkeypatch, solver: Adaptive, given: Problem) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(proximal_newton, "applies", lambda *_: False)
        return solver(given.objective, given.start).codes


def test_they_apply_to_separable_energies_with_an_l1_term_on_the_cpu():
    given = problem(Energy(0.02, encoder_weight=1.0), 5.0)
    assert applies(given.objective, given.start)
    assert not applies(given.objective, given.start.to("meta"))
    assert not applies(given.objective, given.start[:0])
    for penalty in PENALTIES.values():
        theirs = replace(given, energy=Energy(0.02, penalty=penalty))
        assert not applies(theirs.objective, given.start)
    hinge = replace(given, energy=Energy(0.02, 10.0, 0.5))
    assert not applies(hinge.objective, given.start)


def test_there_are_none_where_one_quadratic_does_not_do():
    far = problem(Energy(0.02), 0.0)
    sparse = far.start * (torch.rand(50, CODE_DIM) < 0.3)
    with torch.no_grad():
        far.decoder.hidden[0].bias.zero_()
    assert descend(far.objective, sparse, 10) is None, "half of the units are active"
    linear = Energy(0.02).bind(LinearDecoder(CODE_DIM, INPUT_DIM).double(), far.inputs)
    assert descend(linear, far.start, 10) is None, "it is its own quadratic"


def test_there_are_none_where_no_hidden_unit_is_active():
    given = problem(Energy(0.1), 0.0)
    with torch.no_grad():
        given.decoder.hidden[0].bias.fill_(-100)
    assert descend(given.objective, given.start, 10) is None
    assert (Adaptive()(given.objective, given.start).codes == 0).all()


@every_energy
@pytest.mark.parametrize("hidden_dims", [(60,), (60, 24)])
def test_a_network_that_is_linear_takes_few_steps(monkeypatch, energy, hidden_dims):
    given = problem(energy, 5.0, hidden_dims)
    objective = given.objective
    lowest = objective.energies(without_newton(monkeypatch, Adaptive(5_000, 1e-12), given))
    before = objective.energies(given.start) - lowest
    found = descend(objective, given.start, 20)
    assert found.steps.max() <= 8
    gaps = found.energies - lowest
    assert (gaps > -1e-12).all()
    assert (gaps < 1e-5 * before).all()


@pytest.mark.parametrize("bias", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("hidden_dims", [(60,), (60, 40)])
def test_never_uphill(bias, hidden_dims):
    given = problem(Energy(0.02), bias, hidden_dims)
    objective = given.objective
    energies = objective.energies(given.start)
    for most in range(1, 9):
        found = descend(objective, given.start, most)
        assert 1 <= found.steps.max() <= most
        assert (found.energies <= energies).all()
        torch.testing.assert_close(found.energies, objective.energies(found.codes))
        assert (found.codes >= 0).all()
        energies = found.energies


class Raised:
    """An objective whose energies are higher for some samples from the second look on."""

    def __init__(self, objective: Objective, rows: int) -> None:
        self.objective, self.rows, self.looks = objective, rows, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.objective, name)

    def energies_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        energies, gradient = self.objective.energies_and_gradient(codes)
        energies[: self.rows] += 10 * self.looks
        self.looks += 1
        return energies, gradient


def test_a_step_uphill_is_not_taken():
    given = problem(Energy(0.02), 5.0)
    found = descend(Raised(given.objective, 3), given.start, 1)
    assert torch.equal(found.codes[:3], given.start[:3])
    assert (found.codes[3:] != given.start[3:]).any(1).all()
    assert (found.curvature[:3] > found.curvature[3:].max()).all(), "the next is shorter"


def test_none_is_taken_where_many_energies_do_not_fall_as_promised():
    given = problem(Energy(0.02), 5.0)
    assert descend(Raised(given.objective, 10), given.start, 5) is None


@every_energy
@pytest.mark.parametrize("bias", [0.5, 5.0])
def test_the_minimum_is_that_of_adaptive_without_them(monkeypatch, energy, bias):
    given, solver = problem(energy, bias), Adaptive(2_000, 1e-9)
    objective = given.objective
    assert descend(objective, given.start, 10) is not None
    found = solver(objective, given.start).codes
    other = without_newton(monkeypatch, solver, given)
    total, expected = (float(objective.energies(codes).sum()) for codes in (found, other))
    assert total == pytest.approx(expected, rel=1e-9 if bias == 5.0 else 1e-4)


def test_they_save_iterations(monkeypatch):
    """Where atoms are alike, which makes steps along the gradient slow."""
    given, solver = problem(Energy(0.002), 1.0), Adaptive(500, 1e-6)
    with torch.no_grad():
        given.decoder.hidden[0].weight.add_(torch.rand(60, 1))
    found = solver(given.objective, given.start)
    monkeypatch.setattr(proximal_newton, "applies", lambda *_: False)
    without = solver(given.objective, given.start)
    assert found.iterations.double().mean() < 0.75 * without.iterations.double().mean()


def test_the_limit_counts_them():
    given = problem(Energy(0.02), 0.5)
    for limit in (1, 2, 3, 9):
        found = Adaptive(limit, 0.0)(given.objective, given.start)
        assert found.iterations.max() == limit
        assert (found.iterations >= limit // 2).all(), "who rests earlier has fewer"


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_sample_that_is_lost_does_not_stop_the_others(number):
    given = problem(Energy(0.02), 5.0)
    alone = descend(given.objective, given.start, 20)
    given.inputs[3, 4] = number
    found = descend(given.objective, given.start, 20)
    others = torch.arange(50) != 3
    torch.testing.assert_close(found.energies[others], alone.energies[others])
    assert torch.equal(found.codes[3], given.start[3])
