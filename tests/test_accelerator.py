"""What is on an accelerator stays there, and what the host solves for it comes back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from elsewhere import a_pretended_accelerator
from torch import Tensor

from sparse_lightning import host
from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.solvers import FISTA, ISTA, Adaptive
from sparse_lightning.solvers.leaps import leap

ENERGIES = {
    "plain": Energy(0.02),
    "encoder": Energy(0.02, encoder_weight=1.0),
    "hinge": Energy(0.02, 10.0, 0.5, 5.0),
}
SOLVERS = {"fista": FISTA(0.5, 73, 1e-3), "ista": ISTA(0.5, 40, 0.0), "adaptive": Adaptive(90)}
DECODERS = {
    "linear": lambda: LinearDecoder(12, 30),
    "one hidden layer": lambda: MultiLayerDecoder(12, [60], 30),
    "two hidden layers": lambda: MultiLayerDecoder(12, [40, 30], 30),
}


@contextmanager
def a_real_accelerator() -> Iterator[torch.device]:
    with torch.no_grad():
        yield torch.device("cuda")


on_accelerators = pytest.mark.parametrize(
    "accelerator",
    [
        pytest.param(a_pretended_accelerator, id="pretended"),
        pytest.param(
            a_real_accelerator,
            id="cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ),
    ],
)


def problem(decoder: str) -> tuple[Decoder, Tensor, Tensor]:
    """A decoder, inputs, and codes to start from; most hidden units are active."""
    torch.manual_seed(3)
    made = DECODERS[decoder]().double().requires_grad_(False)
    for layer in getattr(made, "hidden", ()):
        layer.bias.add_(0.5)
    codes = 2 * torch.rand(50, 12).double() * (torch.rand(50, 12) < 0.3)
    inputs = made(codes) + 0.1 * torch.randn(50, 30).double()
    return made, inputs, torch.rand(50, 12).double()


def moved(decoder: Decoder, device: torch.device) -> Decoder:
    """A copy on a device, which is perhaps none that a module could be moved to."""
    copied = copy.deepcopy(decoder)
    for module in copied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            setattr(module, name, parameter.detach().to(device))
    return copied


@on_accelerators
@pytest.mark.parametrize("by_host", [True, False], ids=["by the host", "there"])
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_codes_are_those_of_the_cpu(monkeypatch, solver, decoder, energy, by_host, accelerator):
    if not by_host or decoder == "linear":
        monkeypatch.setattr(host, "LARGEST_COMPILED", 0)
    solve, weights = SOLVERS[solver], ENERGIES[energy]
    made, inputs, codes = problem(decoder)
    here = solve(weights.bind(made, inputs, codes), codes)
    with accelerator() as device:
        inputs, codes = inputs.to(device), codes.to(device)
        objective = weights.bind(moved(made, device), inputs, codes)
        assert objective.quadratic is None
        there = solve(objective, codes)
        for name, expected in vars(here).items():
            found = getattr(there, name)
            assert found.device == codes.device
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-9)


@on_accelerators
@pytest.mark.parametrize("nothing_follows", [False, True])
@pytest.mark.parametrize("most", [1, 3, 20])
@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["from zero", "from predictions"])
def test_leaps_are_those_of_the_cpu(scale, most, nothing_follows, accelerator):
    made, inputs, codes = problem("one hidden layer")
    codes = scale * codes
    here = leap(Energy(0.02).bind(made, inputs), codes, most, nothing_follows=nothing_follows)
    assert here.leaps.max() > 0
    with accelerator() as device:
        objective = Energy(0.02).bind(moved(made, device), inputs.to(device))
        codes = codes.to(device)
        there = leap(objective, codes, most, nothing_follows=nothing_follows)
        for name in ("codes", "energies", "gradient", "leaps"):
            found = getattr(there, name)
            assert found.device == codes.device
            torch.testing.assert_close(found.cpu(), getattr(here, name), rtol=1e-6, atol=1e-9)


def test_what_a_pretended_accelerator_refuses():
    with a_pretended_accelerator() as device:
        here, there = torch.ones(3, 3), torch.ones(3, 3).to(device)
        assert torch.equal((there @ there + 1).cpu(), torch.full((3, 3), 4.0))
        assert there.copy_(2 * here).sum() == 18
        with pytest.raises(RuntimeError, match="two devices"):
            there @ here
        with pytest.raises(RuntimeError, match="not supported"):
            there.numpy()
