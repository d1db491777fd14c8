"""Compiled steps by measured curvature take those of torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_lightning import reconstruction
from sparse_lightning.decoders import MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.smooth import Curvature
from sparse_lightning.solvers import Adaptive, Solution, adaptive_descent
from sparse_lightning.solvers.adaptive_descent import AdaptiveDescent, CompiledDescent


@pytest.fixture(autouse=True)
def no_leaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "MOST_SPREAD", 0.0)


def problem(dtype: torch.dtype = torch.float64, count: int = 70) -> tuple[Objective, Tensor]:
    """Samples of very different difficulty, with kinks."""
    decoder = MultiLayerDecoder(12, [40], 30).to(dtype)
    inputs = (
        torch.randn(count, 30, dtype=dtype) * torch.logspace(-2, 1, count, dtype=dtype)[:, None]
    )
    codes = torch.rand(count, 12, dtype=dtype)
    codes[::7] = 0
    return Energy(0.01).bind(decoder, inputs), codes


def by_torch(solver: Adaptive, objective: Objective, codes: Tensor) -> Solution:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive_descent, "CompiledDescent", AdaptiveDescent)
        return solver(objective, codes)


@pytest.mark.parametrize("tolerance", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("limit", [1, 9, 35, 120])
def test_equals_the_loop_over_operations(monkeypatch, tolerance, limit):
    objective, codes = problem()
    kept, solver, used = codes.clone(), Adaptive(limit, tolerance), []
    step = CompiledDescent._step
    monkeypatch.setattr(CompiledDescent, "_step", lambda self: used.append(1) or step(self))
    found, expected = solver(objective, codes), by_torch(solver, objective, codes)
    assert used
    assert torch.equal(codes, kept)
    # Rounding grows on kinks, where a step goes one way or the other.
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.converged, expected.converged)
    if tolerance == 1e-2 and limit == 120:
        assert found.converged.any()


def test_it_goes_back_where_the_energy_has_risen():
    """From a curvature that is much too small, so that the first steps are too long."""
    objective, codes = problem()
    with pytest.MonkeyPatch.context() as patch:
        tiny = Curvature(0.0, 1e-7, is_bound=False)
        patch.setattr(type(objective), "curvature", lambda self, codes: tiny)
        for limit in (9, 10, 11, 40):
            solver = Adaptive(limit, 0.0)
            found, expected = solver(objective, codes), by_torch(solver, objective, codes)
            torch.testing.assert_close(found.codes, expected.codes, rtol=1e-6, atol=1e-8)
    assert (objective.comparable(found.codes) < objective.comparable(codes)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_any_precision(dtype):
    objective, codes = problem(dtype)
    found, expected = (
        run(Adaptive(12, 0.0), objective, codes) for run in (Adaptive.__call__, by_torch)
    )
    assert found.codes.dtype == dtype
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-3, atol=1e-4)


def test_divergence_is_not_hidden():
    """What is not a number stays it in the codes, and the start is returned."""
    objective, codes = problem()
    codes[3, 4] = torch.nan
    found = Adaptive(30, 1e-4)(objective, codes)
    assert found.codes[3].isnan().any()
    assert not found.converged[3]
    assert found.codes[4:].isfinite().all()


def test_gradients_of_any_layout(monkeypatch):
    objective, codes = problem()
    expected, gradient = Adaptive(30, 1e-4)(objective, codes), type(objective).gradient

    def strided(self: Objective, codes: Tensor, out: Tensor | None = None) -> Tensor:
        return gradient(self, codes).T.contiguous().T

    monkeypatch.setattr(type(objective), "gradient", strided)
    torch.testing.assert_close(Adaptive(30, 1e-4)(objective, codes).codes, expected.codes)


def test_strided_codes_and_inference_mode():
    with torch.inference_mode():
        objective, codes = problem()
        strided = codes.T.contiguous().T
        assert not strided.is_contiguous()
        found = Adaptive(30, 1e-4)(objective, strided)
    expected = Adaptive(30, 1e-4)(objective, codes)
    torch.testing.assert_close(found.codes, expected.codes)
