"""Penalties against minimisation on a grid, and signed codes in a model."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from problems import SignedL1
from scipy.optimize import minimize
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA, SignedLISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.metrics import CodeStatistics
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import (
    L1,
    GroupLasso,
    NonNegativeGroupLasso,
    NonNegativeL0,
    NonNegativeL1,
    NonNegativeLogSum,
    Penalty,
)
from sparse_lightning.solvers import Adaptive

# Each penalty that is a sum over components, of one component, as its formula has it.
SEPARABLE = {
    NonNegativeL1(): lambda z: z,
    L1(): lambda z: z.abs(),
    SignedL1(): lambda z: z.abs(),
    NonNegativeLogSum(0.3): lambda z: torch.log1p(z / 0.3),
    NonNegativeL0(): lambda z: (z != 0).double(),
}
every_penalty = pytest.mark.parametrize("penalty", SEPARABLE, ids=lambda p: type(p).__name__)
GROUPED = [GroupLasso(3), NonNegativeGroupLasso(3), GroupLasso(1), NonNegativeGroupLasso(6)]


@every_penalty
@pytest.mark.parametrize(
    "threshold", [0.0, 0.4, torch.tensor([[0.0], [0.1], [0.4], [2.0]]).double()]
)
def test_prox_has_the_least_cost_of_all_codes(penalty: Penalty, threshold: float | Tensor):
    """One threshold for all samples, or one of each."""
    codes = 2 * torch.randn(4, 50).double()
    grid = torch.linspace(0, 8, 4_001).double()
    if penalty.is_signed:
        grid = torch.cat((-grid.flip(0), grid))
    found = penalty.prox(codes, threshold)
    assert found.shape == codes.shape
    assert penalty.is_signed or (found >= 0).all()
    thresholds = torch.as_tensor(threshold).expand(4, 1).double()

    def cost(z: Tensor) -> Tensor:
        distance = (z - codes[..., None]).square() / 2
        return distance + thresholds[..., None] * SEPARABLE[penalty](z)

    least, best = cost(grid).min(-1)
    assert (cost(found[..., None]).squeeze(-1) <= least + 1e-12).all()
    if not isinstance(penalty, NonNegativeLogSum | NonNegativeL0):  # Convex: one minimum.
        torch.testing.assert_close(found, grid[best], rtol=0, atol=0.002)


@every_penalty
def test_value_is_summed_over_the_components_of_each_sample(penalty: Penalty):
    codes = torch.randn(3, 7).double()
    codes = codes if penalty.is_signed else codes.relu()
    expected = torch.stack([SEPARABLE[penalty](code).sum() for code in codes])
    torch.testing.assert_close(penalty.value(codes), expected)


def group_cost(z: np.ndarray, size: int, v: np.ndarray, threshold: float) -> float:
    """What the proximal step minimises, of one sample, literally."""
    groups = [z[start : start + size] for start in range(0, len(z), size)]
    norms = sum(math.sqrt(sum(value**2 for value in group)) for group in groups)
    return float(((z - v) ** 2).sum() / 2 + threshold * math.sqrt(size) * norms)


@pytest.mark.parametrize("penalty", GROUPED, ids=str)
def test_prox_of_groups_has_the_least_cost(penalty: GroupLasso):
    """Against a numerical minimiser with bounds, from several starts."""
    size, codes = penalty.group_size, torch.randn(5, 6).double()
    thresholds = torch.tensor([[0.3], [0.0], [1.0], [2.0], [0.3]]).double()
    found = penalty.prox(codes, thresholds)
    bounds = None if penalty.is_signed else [(0, None)] * 6
    for z, v, own in zip(found.numpy(), codes.numpy(), thresholds.flatten().tolist()):
        cost = partial(group_cost, size=size, v=v, threshold=own)
        starts = [np.full(6, 1e-3), np.abs(v) + 0.1, np.where(v > 0, v, 0.01)]
        least = min(float(minimize(cost, x, bounds=bounds, tol=1e-12).fun) for x in starts)
        assert cost(z) == pytest.approx(least, abs=1e-5)
        assert cost(z) <= least + 1e-9
        assert penalty.is_signed or (z >= 0).all()
    torch.testing.assert_close(penalty.prox(codes, 0.3)[[0, 4]], found[[0, 4]])
    expected = [group_cost(z, size, z, 1.0) for z in found.numpy()]
    torch.testing.assert_close(penalty.value(found), torch.tensor(expected).double())


@pytest.mark.parametrize("penalty", [*SEPARABLE, *GROUPED], ids=str)
def test_prox_in_single_precision_is_that_in_double(penalty: Penalty):
    """Whatever the size of a code is."""
    codes = torch.randn(4, 600).double() * torch.logspace(-6, 3, 600).double()
    fine, coarse = penalty.prox(codes, 0.1), penalty.prox(codes.float(), 0.1)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), fine, rtol=1e-4, atol=1e-5)
    assert torch.equal(coarse == 0, fine == 0)


def test_settings_of_penalties_are_checked():
    with pytest.raises(SettingError, match=r"penalty\.epsilon=0"):
        NonNegativeLogSum(0.0)
    with pytest.raises(SettingError, match=r"penalty\.group_size=2\.5"):
        GroupLasso(2.5)
    energy = Energy(0.1, penalty=NonNegativeGroupLasso(4))
    with pytest.raises(SettingError, match=r"group_size=4 must divide .*code_dim=6"):
        SparseAutoencoder(LinearDecoder(6, 10), None, energy, Adaptive(), AdamSettings(1e-3, 1e-3))


def test_signed_lista_unrolls_the_soft_threshold():
    """As Gregor & LeCun write it, one sample and one unit after another."""
    encoder, theta = SignedLISTA(7, 5, 2).double(), [0.3, 0.0, -0.2, 0.1, 2.0]
    with torch.no_grad():
        encoder.threshold.copy_(torch.tensor(theta))
    inputs = torch.randn(6, 7).double()
    u, s = encoder.input.weight.detach().numpy(), encoder.lateral.weight.detach().numpy()

    def h(v: np.ndarray) -> np.ndarray:
        return np.array([math.copysign(max(abs(x) - abs(t), 0.0), x) for x, t in zip(v, theta)])

    for x, found in zip(inputs.numpy(), encoder(inputs).detach().numpy()):
        z = h(u @ x)
        for _ in range(2):
            z = h(u @ x + s @ z)
        np.testing.assert_allclose(found, z, atol=1e-6)
    assert (encoder(inputs) < 0).any()
    encoder(inputs).square().sum().backward()
    assert encoder.threshold.grad[0] != 0


def test_the_largest_of_a_component_with_signs_is_its_largest_magnitude():
    statistics = CodeStatistics(2)
    statistics.update(torch.tensor([[-3.0, 0.0], [2.0, 0.0]]))
    assert statistics.largest.tolist() == [3.0, 0.0]
    assert int(statistics.compute()["dead_units"]) == 1


class Linear(LISTA):
    """An encoder without relus."""

    is_signed = True

    def forward(self, inputs: Tensor) -> Tensor:
        return self.input(inputs)


def model(encoder: LISTA | None) -> SparseAutoencoder:
    energy = Energy(0.05, penalty=SignedL1())
    settings = AdamSettings(1e-3, 1e-3)
    return SparseAutoencoder(LinearDecoder(6, 10), encoder, energy, Adaptive(), settings)


def test_an_encoder_without_signs_cannot_predict_codes_with_signs():
    message = r"model\.energy\.penalty=SignedL1 .* model\.encoder=LISTA cannot predict"
    with pytest.raises(SettingError, match=message):
        model(LISTA(10, 6))


@pytest.mark.parametrize(
    "encoder",
    [None, Linear(10, 6), SignedLISTA(10, 6)],
    ids=["without", "a user's own", "signed LISTA"],
)
def test_codes_with_signs_are_inferred_and_counted(encoder: LISTA | None):
    inputs = torch.randn(30, 10)
    codes = model(encoder).infer(inputs).codes
    assert (codes < 0).any()
    assert (codes > 0).any()
    statistics = CodeStatistics(6)
    statistics.update(codes)
    found = statistics.compute()
    assert 0 < float(found["zeros"]) < 1
    assert float(found["zeros"]) == pytest.approx(float((codes == 0).double().mean()))
    assert float(found["code_l1"]) == pytest.approx(float(codes.abs().sum(1).mean()), rel=1e-6)


class Unclipped(NonNegativeL1):
    """A proximal step that forgets that codes have no signs."""

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return codes - threshold


class Flat(NonNegativeL1):
    """A proximal step that returns another shape."""

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return (codes - threshold).relu().flatten()


class OwnThresholds(NonNegativeL1):
    """A proximal step that gives the thresholds of codes to components."""

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        own = torch.as_tensor(threshold).flatten()
        return (codes - own.repeat(codes.shape[1])[: codes.shape[1]]).relu()


class Rooted(NonNegativeL1):
    """A proximal step that takes a threshold for a number."""

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return (codes - math.sqrt(threshold)).relu()


class Summed(NonNegativeL1):
    """A value that sums over the batch."""

    def value(self, codes: Tensor) -> Tensor:
        return codes.sum()


@pytest.mark.parametrize(
    ("penalty", "told"),
    [
        (Unclipped(), r"penalty=Unclipped: prox gives negative codes"),
        (Flat(), r"penalty=Flat: prox gives codes of shape \[18\] for those of \[3, 6\]"),
        (Summed(), r"penalty=Summed: value gives the shape \[\] for 3 codes"),
        (OwnThresholds(), r"penalty=OwnThresholds: prox gives other codes where each code has a"),
        (Rooted(), r"penalty=Rooted: prox fails \(.*\) where each code has a threshold of its own"),
    ],
)
def test_a_penalty_that_cannot_be_one_is_refused(penalty, told):
    settings = AdamSettings(1e-3, 1e-3)
    with pytest.raises(SettingError, match=told):
        SparseAutoencoder(
            LinearDecoder(6, 10), None, Energy(0.05, penalty=penalty), Adaptive(), settings
        )
