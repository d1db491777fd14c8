"""The compiled loops: what they take, and what must not depend on how they run.

That they give what the literal loop gives is tested in `test_solvers`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
import torch
from problems import CODE_DIM, ENERGIES, INPUT_DIM, PENALTIES, literal_solution, problem
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.distributed import Processes
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.penalties import NonNegativeL1
from sparse_lightning.solvers import (
    FISTA,
    Adaptive,
    Solution,
    cuda_graph,
    gram_numba,
    proximal_newton,
)
from sparse_lightning.solvers.proximal_gradient import State
from sparse_lightning.variance import Moments, VarianceHinge

every_energy = pytest.mark.parametrize("energy", ENERGIES)
coupled_or_not = pytest.mark.parametrize("energy", ["DO", "VDL"])


def by_torch(
    monkeypatch, solver: FISTA | Adaptive, objective: Objective, start: Tensor
) -> Solution:
    with monkeypatch.context() as patch:
        patch.setattr(gram_numba, "applies", lambda *_: False)
        return solver(objective, start)


@every_energy
def test_quadratics_of_this_process_are_taken(energy: str):
    given = problem("linear", ENERGIES[energy])
    assert gram_numba.applies(given.objective, given.start)


def test_what_the_loops_do_not_know_is_refused():
    given = problem("linear", ENERGIES["VDL"])
    objective, start = given.objective, given.start
    for penalty in PENALTIES.values():
        theirs = replace(given, energy=replace(given.energy, penalty=penalty))
        assert not gram_numba.applies(theirs.objective, start)
    frozen = objective.restrict(torch.arange(30), start[30:])
    assert not gram_numba.applies(frozen, start[:30])
    assert not gram_numba.applies(replace(objective, processes=Processes()), start)
    assert not gram_numba.applies(objective, start.to("meta"))
    assert not gram_numba.applies(objective, torch.empty(1, 20_000)), "a Gram matrix of gigabytes"
    network = problem("one hidden layer", ENERGIES["DO"])
    assert not gram_numba.applies(network.objective, network.start)


@dataclass(frozen=True)
class Halved(NonNegativeL1):
    """A user's penalty that inherits from the one that the loops know."""

    def value(self, codes: Tensor) -> Tensor:
        return super().value(codes) / 2

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return super().prox(codes, threshold / 2)


def test_a_penalty_that_inherits_is_honoured():
    given = problem("linear", Energy(0.2, penalty=Halved()), count=4)
    solver = FISTA(0.1, 20, 0.0)
    found = solver(given.objective, given.start)
    curvature = torch.full((4,), given.objective.lipschitz(given.start))
    torch.testing.assert_close(found.codes, literal_solution(given, solver, curvature, True)[0])


@dataclass(frozen=True)
class Tilted(Objective):
    """A user's objective that inherits."""

    def gradient(self, codes: Tensor) -> Tensor:
        return super().gradient(codes) + 0.01


class Doubled(VarianceHinge):
    """A user's hinge that inherits."""

    def gradient(self, codes: Tensor, moments: Moments) -> Tensor:
        return 2 * super().gradient(codes, moments)


class WithDoubledHinge(Energy):
    @property
    def hinge(self) -> VarianceHinge | None:
        return Doubled(self.variance_weight, self.variance_threshold)


def test_objectives_and_hinges_that_inherit_are_honoured(monkeypatch):
    given = problem("linear", ENERGIES["VDL"])
    tilted = Tilted(**vars(given.objective))
    hinged = replace(given, energy=WithDoubledHinge(0.02, 10.0, 0.5)).objective
    for objective in (tilted, hinged):
        found = FISTA(0.2, 10)(objective, given.start)
        assert torch.equal(
            found.codes, by_torch(monkeypatch, FISTA(0.2, 10), objective, given.start).codes
        )
        assert not gram_numba.applies(objective, given.start)
        assert not cuda_graph.applies(objective, torch.device("cuda"))
    separable = Tilted(**vars(problem("linear", ENERGIES["DO"]).objective))
    assert not proximal_newton.applies(separable, given.start)


def test_without_a_compiler_the_general_loop_runs(monkeypatch):
    given = problem("linear", ENERGIES["DO"])
    assert proximal_newton.applies(given.objective, given.start)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    assert not gram_numba.applies(given.objective, given.start)
    assert not proximal_newton.applies(given.objective, given.start)


class Iterates(FISTA):
    def iterate(self, objective: Objective, state: State, step: float | None) -> State:
        return replace(super().iterate(objective, state, step), point=state.codes)


class Extrapolates(FISTA):
    def momentum(self, age: Tensor, correction: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(change[:, :1], 0.3), age


class Descends(FISTA):
    def descend(self, objective: Objective, state: State, step: float | None) -> Solution:
        return Solution(state.codes + 1, state.iterations.squeeze(1), ~state.frozen.squeeze(1))


@pytest.mark.parametrize("kind", [Iterates, Extrapolates, Descends])
def test_a_solver_that_inherits_is_honoured(monkeypatch, kind: type[FISTA]):
    given = problem("linear", ENERGIES["VDL"])
    solver = kind(0.2, 10)
    found = solver(given.objective, given.start)
    expected = by_torch(monkeypatch, solver, given.objective, given.start)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.iterations, expected.iterations)


class Restarts(FISTA):
    restarts = True


def test_a_solver_that_inherits_may_restart(monkeypatch):
    given = problem("linear", ENERGIES["VDL"])
    solver = Restarts(0.2, 100)
    found = solver(given.objective, given.start)
    expected = by_torch(monkeypatch, solver, given.objective, given.start)
    torch.testing.assert_close(found.codes, expected.codes)
    assert torch.equal(found.iterations, expected.iterations)
    assert not torch.equal(found.codes, FISTA(0.2, 100)(given.objective, given.start).codes)


@every_energy
@pytest.mark.parametrize("solver", [FISTA(0.3, 100, 0.0), Adaptive(100, 0.0)])
def test_in_float32(energy: str, solver: FISTA | Adaptive):
    given = problem("linear", ENERGIES[energy], growth=1.0)
    expected = solver(given.objective, given.start).codes
    single = given.to(torch.float32)
    found = solver(single.objective, single.start).codes
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@coupled_or_not
def test_the_number_of_threads_changes_no_digit(energy: str):
    given = problem("linear", ENERGIES[energy], count=3_000).to(torch.float32)
    objective = given.objective  # With the same Gram matrix for both.
    threads, codes = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            codes.append(FISTA(0.3, 20, 1e-4)(objective, given.start).codes)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*codes)


def test_several_threads_may_infer():
    given = problem("linear", ENERGIES["VDL"], count=1_000)
    objective, solver = given.objective, FISTA(0.3, 20, 1e-6)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: solver(objective, given.start).codes, range(8)))
    assert all(torch.equal(codes, found[0]) for codes in found)


@pytest.mark.slow
def test_torch_keeps_its_number_of_threads():
    """The first call of all is what would change it, so that a new process must tell."""
    program = (
        "import torch; from sparse_lightning import FISTA, Energy, LinearDecoder;"
        "objective = Energy(0.1).bind(LinearDecoder(4, 6), torch.rand(3, 6));"
        "FISTA(0.1)(objective, torch.zeros(3, 4)); print(torch.get_num_threads())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.split() == ["1"]


@every_energy
def test_takes_what_torch_has(energy: str):
    """Strided codes, and tensors that may not enter autograd."""
    given, solver = problem("linear", ENERGIES[energy]), FISTA(0.3, 30, 0.0)
    expected = solver(given.objective, given.start).codes
    with torch.inference_mode():
        strided = given.start.T.contiguous().T
        assert not strided.is_contiguous()
        assert torch.equal(solver(given.objective, strided).codes, expected)


@every_energy
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_divergence_is_not_hidden(energy: str, tolerance: float):
    given = problem("linear", ENERGIES[energy])
    solver = FISTA(1e6, 200, tolerance, safeguard=False)
    assert not solver(given.objective, given.start).codes.isfinite().all()
    given.start[5, 2] = torch.nan
    gentle = FISTA(0.1, 20, tolerance, safeguard=False)
    assert gentle(given.objective, given.start).codes[5].isnan().any()


def alike(copies: bool = False) -> tuple[Objective, Tensor]:
    """Atoms that differ little, or twice the same."""
    decoder = LinearDecoder(CODE_DIM, INPUT_DIM).double()
    with torch.no_grad():
        decoder.weight.add_(torch.rand(INPUT_DIM, 1))
        if copies:
            decoder.weight[:, 6:] = decoder.weight[:, :6]
        codes = torch.rand(40, CODE_DIM).double() * (torch.rand(40, CODE_DIM) < 0.3)
        inputs = decoder(codes) + 0.05 * torch.randn(40, INPUT_DIM)
    return Energy(0.001).bind(decoder, inputs), torch.zeros(40, CODE_DIM).double()


def test_active_atoms_are_solved_for_exactly(monkeypatch):
    """Which saves most iterations where atoms are alike, and arrives at the minimum."""
    objective, start = alike()
    solver = Adaptive(5_000, 1e-6)
    found, slow = solver(objective, start), by_torch(monkeypatch, solver, objective, start)
    assert found.converged.all()
    assert found.iterations.double().mean() < 0.7 * slow.iterations.double().mean()
    lowest = FISTA(1 / objective.lipschitz(start), 20_000, 0.0)(objective, start)
    gaps = objective.energies(found.codes) - objective.energies(lowest.codes)
    assert gaps.abs().max() < 1e-7
    assert (gaps.abs() < 1e-12).double().mean() > 0.8


def test_more_atoms_than_are_solved_for_are_left_to_iterations(monkeypatch):
    decoder = LinearDecoder(40, 60).double()
    inputs = decoder(1 + torch.rand(30, 40).double())
    objective = Energy(0.001).bind(decoder, inputs)
    start, solver = torch.zeros(30, 40).double(), Adaptive(1_000, 1e-6)
    found, expected = solver(objective, start), by_torch(monkeypatch, solver, objective, start)
    assert found.converged.all()
    assert ((found.codes > 0).sum(1) > gram_numba.LARGEST_SOLVED).all()
    assert torch.equal(found.iterations, expected.iterations)
    torch.testing.assert_close(found.codes, expected.codes)


def test_atoms_that_are_the_same_are_left_to_iterations():
    objective, start = alike(copies=True)
    found = Adaptive(5_000, 1e-5)(objective, start)
    assert found.converged.all()
    lowest = FISTA(1 / objective.lipschitz(start), 20_000, 0.0)(objective, start)
    gaps = objective.energies(found.codes) - objective.energies(lowest.codes)
    assert gaps.abs().max() < 1e-6


@pytest.mark.parametrize("restarts", [False, True])
def test_an_active_component_that_is_passed_by_at_zero(restarts: bool):
    """Momentum takes the first component to 0 exactly, for one gradient."""
    gram = torch.tensor([[1.5, 0], [0, 1]]).double()
    linear, start = torch.tensor([[0.25, 1]]).double(), torch.tensor([[5.5, 0]]).double()
    steps, thresholds = torch.tensor([0.5]).double(), torch.zeros(1).double()
    momenta = np.array([0.0, *[0.5] * 99])
    found = gram_numba.minimise(gram, linear, start, steps, thresholds, 0.0, momenta, restarts)
    torch.testing.assert_close(found.codes, torch.tensor([[1 / 6, 1]]).double())
