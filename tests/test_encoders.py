"""LISTA and its gated kin against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA, Encoder, GatedLISTA, SignedLISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import Adaptive


@pytest.mark.parametrize("num_layers", range(7))
def test_formula(num_layers):
    encoder = LISTA(7, 4, num_layers)
    inputs = torch.randn(5, 7)
    drive = inputs @ encoder.input.weight.T + encoder.input.bias
    codes = drive.clamp(min=0)
    for _ in range(num_layers):
        codes = (drive + codes @ encoder.lateral.weight.T).clamp(min=0)
    torch.testing.assert_close(encoder(inputs), codes)


def test_parts():
    encoder = LISTA(7, 4)
    assert encoder.lateral.bias is None
    assert torch.equal(encoder.filters(), encoder.input.weight)
    with pytest.raises(SettingError, match=r"model\.encoder\.num_layers=1\.5 must be a whole"):
        LISTA(7, 4, 1.5)
    with pytest.raises(SettingError, match=r"model\.encoder\.num_layers=-1"):
        LISTA(7, 4, -1)


@pytest.mark.parametrize("num_layers", range(7))
def test_gated_lista_by_a_loop(num_layers):
    encoder = GatedLISTA(7, 4, num_layers, 0.3, 0.4).double()
    with torch.no_grad():
        for parameter in (encoder.gain, encoder.gain_rate, encoder.overshoot):
            parameter.add_(0.2 * torch.randn_like(parameter))
    inputs = torch.randn(5, 7).double()
    weights = {name: weight.detach().tolist() for name, weight in encoder.named_parameters()}
    expected = [literal_gated_lista(weights, x, num_layers) for x in inputs.tolist()]
    torch.testing.assert_close(encoder(inputs).detach(), torch.tensor(expected).double())
    assert (encoder(inputs) >= 0).all()


def literal_gated_lista(weights: dict[str, list], x: list[float], num_layers: int) -> list[float]:
    """Wu et al. 2020, one sample, in numbers of Python's."""

    def apply(name: str, vector: list[float]) -> list[float]:
        return [sum(w * v for w, v in zip(row, vector)) for row in weights[f"{name}.weight"]]

    seen = apply("input", x)
    drive = [u + b for u, b in zip(seen, weights["input.bias"])]
    z = [max(u, 0.0) for u in drive]
    for k in range(num_layers):
        kappa, a, nu = weights["gain"][k], weights["overshoot"][k], weights["gain_rate"][k]
        gained = [(1 + kappa * math.exp(-nu[j] * z[j])) * z[j] for j in range(len(z))]
        shrunk = [max(u + s, 0.0) for u, s in zip(drive, apply("lateral", gained))]
        gates = zip(apply("gate_lateral", z), apply("gate_input", x), weights["gate_input.bias"])
        over = [1 + a * abs(seen[j]) / (1 + math.exp(-sum(g))) for j, g in enumerate(gates)]
        z = [max(over[j] * shrunk[j] + (1 - over[j]) * z[j], 0.0) for j in range(len(z))]
    return z


def test_gated_lista_without_gates_is_lista():
    gated, plain = GatedLISTA(7, 4, 3, 0.0, 0.0), LISTA(7, 4, 3)
    shared = plain.state_dict()
    gated.load_state_dict({**gated.state_dict(), **shared})
    inputs = torch.randn(5, 7)
    torch.testing.assert_close(gated(inputs), plain(inputs))


def test_gated_lista_shrinks_as_a_subclass_does():
    class Shifted:
        def shrink(self, drive):
            return torch.relu(drive - 0.3)

    gated = type("Gated", (Shifted, GatedLISTA), {})(7, 4, 3, 0.0, 0.0)
    plain = type("Plain", (Shifted, LISTA), {})(7, 4, 3)
    gated.load_state_dict({**gated.state_dict(), **plain.state_dict()})
    inputs = torch.randn(5, 7)
    torch.testing.assert_close(gated(inputs), plain(inputs))


def test_a_lista_without_a_bias_tells_of_none():
    class OwnSigned(LISTA):
        is_signed = True

    assert all(weight is not None for weight, _ in OwnSigned(6, 4).unit_slices())
    gated = GatedLISTA(6, 4, num_layers=2.0)
    assert gated.gain.shape == (2,)


def test_gates_are_not_for_codes_with_signs():
    signed = type("Signed", (GatedLISTA,), {"is_signed": True})
    with pytest.raises(SettingError, match=r"Signed .*SignedLISTA"):
        signed(7, 4)


class Unclipped(Encoder):
    """Codes that have signs, and do not say so; counts what it has seen."""

    input_dim, code_dim = 7, 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm1d(7), nn.Linear(7, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)


class Clipped(Unclipped):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).relu()


def test_an_encoder_that_gives_signs_must_tell_of_them():
    settings = AdamSettings(1e-3, 1e-3)
    with pytest.raises(SettingError, match=r"encoder=Unclipped gives negative codes, which is_si"):
        SparseAutoencoder(LinearDecoder(4, 7), Unclipped(), Energy(0.05), Adaptive(), settings)
    encoder = Clipped()
    SparseAutoencoder(LinearDecoder(4, 7), encoder, Energy(0.05), Adaptive(), settings)
    # The test changes nothing of it.
    assert encoder.training
    assert encoder.layer[0].num_batches_tracked == 0


@pytest.mark.parametrize("kind", [LISTA, GatedLISTA, SignedLISTA])
@pytest.mark.parametrize("num_layers", [0, 1])
def test_what_can_learn_gets_a_gradient(kind, num_layers):
    """Processes that train together ask for that."""
    encoder = kind(7, 4, num_layers)
    encoder(torch.randn(30, 7)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name


def test_every_gate_gets_a_gradient():
    encoder = GatedLISTA(7, 4)
    encoder(torch.randn(30, 7)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name
