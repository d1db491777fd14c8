"""Iterations that are recorded and replayed give what plain ones give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from problems import DECODERS, ENERGIES, PENALTIES, Problem, problem
from torch import Tensor

from sparse_lightning.distributed import Processes
from sparse_lightning.solvers import (
    FISTA,
    ISTA,
    Adaptive,
    cuda_graph,
    gram_numba,
    proximal_gradient,
    proximal_newton,
)
from sparse_lightning.solvers.cuda_graph import Replayed

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")
SOLVERS = {
    "FISTA": FISTA(0.3, 73, 1e-3),
    "FISTA, all iterations": FISTA(0.3, 33, 0.0),
    "FISTA, step too large": FISTA(3.0, 73, 1e-3),
    "ISTA": ISTA(0.3, 60, 1e-3),
    "Adaptive": Adaptive(95, 1e-3),
}
# Those whose iterations are recorded.
NETWORKS = [name for name in DECODERS if name != "a user's own"]


@dataclass
class Pair:
    """A state of which one part may be the other under a second name."""

    left: Tensor
    right: Tensor

    def clone(self) -> Pair:
        return Pair(self.left.clone(), self.right.clone())


class Graph:
    """Stands for a CUDA graph where there is no such device: it runs what it has recorded.

    Like a graph it reads and writes the tensors that there were when it was recorded.
    """

    def __init__(self, function: Callable, state: object) -> None:
        self.function, self.state = function, state
        self.places = dict(vars(state))

    def replay(self) -> None:
        assert all(getattr(self.state, name) is place for name, place in self.places.items())
        cuda_graph._copy(self.function(self.state), self.state)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """All that are recorded on the CPU, as iterations are on a device."""
    recorded: list[Graph] = []

    def record(self: Replayed) -> Graph:
        recorded.append(Graph(self.function, self.state))
        return recorded[-1]

    applies = cuda_graph.applies
    monkeypatch.setattr(Replayed, "_record", record)
    monkeypatch.setattr(cuda_graph, "applies", lambda objective, _: applies(objective, CUDA))
    monkeypatch.setattr(gram_numba, "applies", lambda *_: False)
    monkeypatch.setattr(proximal_gradient, "looks_every", lambda _: 10)
    return recorded


def test_a_function_that_swaps_tensors_can_be_replayed(graphs: list[Graph]):
    """The new state is where the old one was, and states that others made are copied there."""

    def function(pair: Pair) -> Pair:
        return Pair(pair.left + pair.right, pair.left)

    replayed, ones = Replayed(function, CUDA), Pair(torch.ones(2), torch.ones(2))
    state = ones
    for expected in ([2, 1], [3, 2], [5, 3], [8, 5]):
        state = replayed(state)
        assert [int(state.left[0]), int(state.right[0])] == expected
    assert len(graphs) == 1
    other = replayed(Pair(torch.full((2,), 4.0), torch.zeros(2)))
    assert [int(other.left[0]), int(other.right[0])] == [4, 4]
    assert torch.equal(ones.left, torch.ones(2)), "what is given is left as it is"


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", NETWORKS)
def test_iterations_can_be_replayed(graphs: list[Graph], monkeypatch, decoder: str, energy: str):
    """Also when samples leave the batch, after which it is recorded again."""
    monkeypatch.setattr(proximal_gradient, "is_worth_compacting", lambda frozen, _: frozen >= 15)
    given = problem(decoder, ENERGIES[energy])
    found = [solver(given.objective, given.start) for solver in SOLVERS.values()]
    assert len(graphs) > 1
    monkeypatch.setattr(cuda_graph, "applies", lambda *_: False)
    for solution, solver in zip(found, SOLVERS.values()):
        expected = solver(given.objective, given.start)
        assert torch.equal(solution.codes, expected.codes)
        assert torch.equal(solution.iterations, expected.iterations)
        assert torch.equal(solution.converged, expected.converged)


def test_what_may_ask_the_device_for_a_number_is_not_recorded():
    for name in NETWORKS:
        objective = problem(name, ENERGIES["VDL"]).objective
        assert cuda_graph.applies(objective, CUDA)
        assert not cuda_graph.applies(objective, torch.device("cpu"))
        assert not cuda_graph.applies(replace(objective, processes=Processes()), CUDA)
    own = problem("a user's own", ENERGIES["VDL"]).objective
    assert not cuda_graph.applies(own, CUDA)
    for penalty in PENALTIES.values():
        energy = replace(ENERGIES["VDL"], penalty=penalty)
        assert not cuda_graph.applies(problem("linear", energy).objective, CUDA)


def moved(given: Problem) -> Problem:
    parts = (given.inputs, given.encoder_codes, given.start)
    decoder = copy.deepcopy(given.decoder).to(CUDA)
    return Problem(given.energy, decoder, *(part.to(CUDA) for part in parts))


@needs_cuda
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_device_gives_what_the_cpu_gives(monkeypatch, solver: str, decoder: str, energy: str):
    """Recorded where it can be; also when samples leave the batch."""
    monkeypatch.setattr(proximal_gradient, "FILLS_AN_ACCELERATOR", 100)
    monkeypatch.setattr(gram_numba, "applies", lambda *_: False)
    monkeypatch.setattr(proximal_newton, "applies", lambda *_: False)
    given = problem(decoder, ENERGIES[energy])
    there = moved(given)
    expected = SOLVERS[solver](given.objective, given.start)
    found = SOLVERS[solver](there.objective, there.start)
    torch.testing.assert_close(found.codes.cpu(), expected.codes, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.iterations.cpu(), expected.iterations)
    assert torch.equal(found.converged.cpu(), expected.converged)
