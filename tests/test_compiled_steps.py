"""Compiled steps by measured curvature take those of torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_lightning.decoders import MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.smooth import Curvature
from sparse_lightning.solvers import Adaptive, Solution, adaptive_descent
from sparse_lightning.solvers.adaptive_descent import AdaptiveDescent, CompiledDescent
from sparse_lightning.solvers.leaps import Start
from sparse_lightning.solvers.pace import pace_of


@pytest.fixture(autouse=True)
def no_leaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "expanded", lambda self, codes: None)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settling", [0.0, 0.01, torch.inf])
def test_carries_on_like_the_loop_over_operations(dtype, settling):
    """From the same state, with samples that are held, put back, zero, or not a number."""
    objective, codes = problem(dtype)
    codes, point, gradient, new = (torch.rand_like(codes) for _ in range(4))
    # Corrections of all sizes, and changes that are half to one and a half times as long.
    size = torch.logspace(-6, 0, len(codes), dtype=dtype)[:, None]
    longer = 0.5 + torch.rand(len(codes), 1, dtype=dtype)
    point, codes = new + size * (point - 0.5), new + longer * size * (codes - 0.5)
    new[1], point[2, 3], new[4] = 0, torch.nan, codes[4]
    held, risen = torch.zeros(len(codes)).bool(), torch.zeros(len(codes), 1).bool()
    held[5], risen[6:8] = True, True
    for i in (5, 6, 7):
        codes[i], point[i] = new[i], new[i]
    after = []
    for kind in (AdaptiveDescent, CompiledDescent):
        start = Start(codes, objective.comparable(codes), gradient, torch.zeros(len(codes)).long())
        pace = pace_of(objective, codes, start.energies, objective.curvature(codes), 50)
        descent = kind(objective, start, 0, Adaptive(50, 1e-3), pace)
        descent.codes, descent.point = codes.clone(), point.clone()
        descent.gradient, descent.held = gradient.clone(), held.clone()
        pace.point, pace.gradient = point.clone(), gradient.clone()
        pace.age += torch.arange(len(codes))[:, None] % 9
        pace.has_restarted[::3] = True
        descent.iteration += 7
        descent.settlings[7] = settling**2
        descent._carry_on(new.clone(), risen)
        goes_on = ~descent.held
        own = (pace.rests, pace.age, pace.has_restarted)
        after.append((descent.point, descent.held, descent.ended, *(a[goes_on] for a in own)))
    for ours, theirs in zip(*after):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert goes_on[[6, 7]].all(), "they have been put back"
    assert not goes_on[5]
    # A second opinion on who rests.
    change, correction = (new - codes)[goes_on], (new - point)[goes_on]
    is_uphill = (change * correction).sum(1) < 0
    is_in_the_way = change.norm(dim=1) < 0.8 * correction.norm(dim=1)
    settles = correction.norm(dim=1) <= settling * new[goes_on].norm(dim=1)
    expected = is_uphill | (is_in_the_way & settles)
    assert torch.equal(after[0][3].squeeze(1), expected)
    assert int(expected.sum()) > int(is_uphill.sum()) or settling == 0


def test_it_goes_back_where_the_energy_has_risen():
    """From a curvature that is much too small, so that the first steps are too long."""
    objective, codes = problem()
    with pytest.MonkeyPatch.context() as patch:
        tiny = Curvature(0.0, 1e-7, is_bound=False)
        patch.setattr(type(objective.smooth), "_curvature", lambda self, activations: tiny)
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
