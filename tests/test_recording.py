"""Iterations that are recorded and replayed give what plain ones give."""

from __future__ import annotations

import pytest
import torch

from sparse_lightning import host
from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.solvers import FISTA, ISTA, Adaptive, descent, recording
from sparse_lightning.solvers.recording import Recording, run_in_place

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ENERGIES = {
    "plain": Energy(0.02),
    "encoder": Energy(0.02, encoder_weight=1.0),
    "hinge": Energy(0.02, 10.0, 0.5, 5.0),
}
DECODERS = {
    "linear": lambda: LinearDecoder(24, 50),
    "one hidden layer": lambda: MultiLayerDecoder(24, [40], 50),
    "one wide hidden layer": lambda: MultiLayerDecoder(24, [150], 50),
    "two hidden layers": lambda: MultiLayerDecoder(24, [40, 30], 50),
}
SOLVERS = {
    "fista": FISTA(0.5, 73, 1e-3),
    "fista to the end": FISTA(0.5, 73, 0.0),
    "ista": ISTA(0.5, 200, 1e-3),
    "adaptive": Adaptive(200, 1e-4),
}


def problem(decoder: str, energy: str, device: str):
    """Samples that converge at different times."""
    torch.manual_seed(3)
    made = DECODERS[decoder]().double()
    inputs, prediction = torch.randn(60, 50).double(), torch.rand(60, 24).double()
    inputs *= torch.logspace(-2, 1, 60)[:, None].double()
    objective = ENERGIES[energy].bind(made.to(device), inputs.to(device), prediction.to(device))
    return objective, prediction.to(device)


class Swapping:
    """What a recording has to cope with: tensors that change places, and new ones."""

    def __init__(self) -> None:
        self.left, self.right = torch.tensor([1.0, 2]), torch.tensor([3.0, 4])
        self.sum = torch.zeros(2)

    def run(self) -> None:
        self.left, self.right = self.right, self.left
        self.sum = self.sum + self.left


def test_what_a_run_leaves_is_where_it_was():
    plain, placed = Swapping(), Swapping()
    places = dict(vars(placed))
    for _ in range(3):
        plain.run()
        run_in_place(placed.run, [placed])
        for name, place in places.items():
            assert getattr(placed, name) is place
            assert torch.equal(place, getattr(plain, name)), name


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_iterations_can_be_run_in_place(monkeypatch, solver, decoder, energy):
    """As a recording runs them, though on the CPU each block is run for real."""

    class InPlace(Recording):
        def __call__(self) -> None:
            run_in_place(self.run, self.holders)

    objective, start = problem(decoder, energy, "cpu")
    monkeypatch.setattr(host, "LARGEST_COMPILED", 0)
    plain = SOLVERS[solver](objective, start)
    monkeypatch.setattr(descent, "looks_every", lambda device: 10)
    monkeypatch.setattr(descent, "Recording", InPlace)
    placed = SOLVERS[solver](objective, start)
    torch.testing.assert_close(placed.codes, plain.codes, rtol=1e-9, atol=1e-12)
    assert torch.equal(placed.iterations, plain.iterations)
    assert torch.equal(placed.converged, plain.converged)


@needs_cuda
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_replayed_on_a_device(monkeypatch, solver, decoder, energy):
    monkeypatch.setattr(host, "LARGEST_COMPILED", 0)
    recorded = []
    monkeypatch.setattr(
        recording.Recording,
        "_record",
        lambda self, record=Recording._record: recorded.append(1) or record(self),
    )
    on_host = SOLVERS[solver](*problem(decoder, energy, "cpu"))
    on_device = SOLVERS[solver](*problem(decoder, energy, "cuda"))
    assert recorded or on_host.iterations.max() <= 20
    torch.testing.assert_close(on_device.codes.cpu(), on_host.codes, rtol=1e-6, atol=1e-9)
    assert torch.equal(on_device.iterations.cpu(), on_host.iterations)
    assert torch.equal(on_device.converged.cpu(), on_host.converged)


@needs_cuda
def test_a_large_batch_is_compacted_and_recorded_again(monkeypatch):
    monkeypatch.setattr(descent, "FILLS_AN_ACCELERATOR", 100)
    solver = FISTA(0.5, 400, 1e-5)
    on_host = solver(*problem("one hidden layer", "hinge", "cpu"))
    on_device = solver(*problem("one hidden layer", "hinge", "cuda"))
    assert torch.equal(on_device.iterations.cpu(), on_host.iterations)
    torch.testing.assert_close(on_device.codes.cpu(), on_host.codes, rtol=1e-6, atol=1e-9)
