"""Penalties against minimisation on a grid, and signed codes in a model."""

from __future__ import annotations

import pytest
import torch
from problems import NonNegativeLogSum, SignedL1
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.metrics import CodeStatistics
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import NonNegativeL1, Penalty
from sparse_lightning.solvers import Adaptive

# Each penalty of one component, as its formula has it.
PENALTIES = {
    NonNegativeL1(): lambda z: z,
    SignedL1(): lambda z: z.abs(),
    NonNegativeLogSum(0.3): lambda z: torch.log1p(z / 0.3),
}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: type(p).__name__)


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
        return distance + thresholds[..., None] * PENALTIES[penalty](z)

    least, best = cost(grid).min(-1)
    assert (cost(found[..., None]).squeeze(-1) <= least + 1e-12).all()
    if penalty.is_convex:
        torch.testing.assert_close(found, grid[best], rtol=0, atol=0.002)


@every_penalty
def test_value_is_summed_over_the_components_of_each_sample(penalty: Penalty):
    codes = torch.randn(3, 7).double()
    codes = codes if penalty.is_signed else codes.relu()
    expected = torch.stack([PENALTIES[penalty](code).sum() for code in codes])
    torch.testing.assert_close(penalty.value(codes), expected)


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


@pytest.mark.parametrize("encoder", [None, Linear(10, 6)], ids=["without", "signed"])
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
