"""What is on an accelerator stays there, and has the codes that the CPU finds."""

from __future__ import annotations

import copy

import pytest
import torch
from elsewhere import a_pretended_accelerator
from problems import ENERGIES, problem
from torch import nn

from sparse_lightning.solvers import FISTA, ISTA, Adaptive, fista, gram_numba, proximal_newton

SOLVERS = [FISTA(0.3, 43, 1e-3), FISTA(3.0, 20, 1e-3), ISTA(0.3, 20, 0.0), Adaptive(43, 1e-3)]


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy on a device that no module can be moved to."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            setattr(part, name, parameter.detach().to(device))
    return copied


@pytest.mark.parametrize("energy", ["DO", "VDL"])
@pytest.mark.parametrize("decoder", ["linear", "one hidden layer"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_codes_are_those_of_the_cpu(monkeypatch, solver, decoder: str, energy: str):
    """Also when samples leave the batch."""
    monkeypatch.setattr(fista, "FILLS_AN_ACCELERATOR", 100)
    monkeypatch.setattr(gram_numba, "applies", lambda *_: False)
    monkeypatch.setattr(proximal_newton, "applies", lambda *_: False)
    # A pretended device sees tensors that are moved to it, and none that is made there.
    table = fista.table
    monkeypatch.setattr(
        fista, "table", lambda *own: table(*own[:2], torch.device("cpu")).to(own[2])
    )
    given = problem(decoder, ENERGIES[energy])
    here = solver(given.objective, given.start)
    with a_pretended_accelerator() as device:
        parts = (given.inputs, given.encoder_codes, given.start)
        inputs, prediction, start = (part.to(device) for part in parts)
        objective = given.energy.bind(moved(given.decoder, device), inputs, prediction)
        there = solver(objective, start)
        for name, expected in vars(here).items():
            found = getattr(there, name)
            assert found.device == device
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-8)


def test_what_a_pretended_accelerator_refuses():
    with a_pretended_accelerator() as device:
        here, there = torch.ones(3, 3), torch.ones(3, 3).to(device)
        assert torch.equal((there @ there + 1).cpu(), torch.full((3, 3), 4.0))
        with pytest.raises(RuntimeError, match="two devices"):
            there @ here
        with pytest.raises(RuntimeError, match="not supported"):
            there.numpy()
