"""The compiled pass between two gradients does what torch's operations do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_lightning.decoders import MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.solvers import FISTA, ISTA, Solution
from sparse_lightning.solvers.constant import CompiledDescent, ConstantDescent


def problem(energy: Energy, dtype: torch.dtype) -> tuple[Objective, Tensor]:
    """Samples that converge one after the other, and one that is 0 from the start."""
    decoder = MultiLayerDecoder(14, [40, 20], 30).to(dtype)
    inputs = torch.logspace(-2, 1, 90, dtype=dtype)[:, None] * torch.randn(90, 30, dtype=dtype)
    codes = torch.rand(90, 14, dtype=dtype)
    inputs[7], codes[7] = decoder(codes[:1] * 0)[0].detach(), 0
    return energy.bind(decoder, inputs, codes), codes


def run(kind: type[ConstantDescent], solver: ISTA, objective: Objective, codes: Tensor) -> Solution:
    with torch.no_grad():
        return kind(solver, objective, codes, solver._momenta()).run()


@pytest.mark.parametrize("energy", [Energy(0.02), Energy(0.02, 10.0, 0.5, 2.0)], ids=["l1", "all"])
@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("kind", [ISTA, FISTA])
def test_the_same_as_over_torchs_operations(energy, tolerance, kind):
    objective, start = problem(energy, torch.float64)
    solver = kind(0.2, {ISTA: 700, FISTA: 150}[kind], tolerance)
    before = start.clone()
    expected = run(ConstantDescent, solver, objective, start)
    found = run(CompiledDescent, solver, objective, start)
    assert torch.equal(start, before)
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-8, atol=1e-10)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.converged, expected.converged)
    assert found.converged.any() == (tolerance > 0)
    assert len(found.iterations.unique()) > 5 or tolerance == 0
    torch.testing.assert_close(solver(objective, start).codes, found.codes)


def test_in_float32():
    """A few iterations: on the kinks of a network rounding grows."""
    objective, start = problem(Energy(0.02, 10.0, 0.5, 2.0), torch.float32)
    solver = FISTA(0.2, 10, 1e-3)
    expected = run(ConstantDescent, solver, objective, start)
    found = run(CompiledDescent, solver, objective, start)
    assert found.codes.dtype == torch.float32
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-4, atol=1e-4)


def test_what_does_not_change_has_converged():
    """Of a code of 0 a relative change is 0/0."""
    objective, codes = problem(Energy(100.0), torch.float64)
    found = run(CompiledDescent, FISTA(0.1, 50, 1e-3), objective, 0 * codes)
    assert (found.iterations == 1).all()
    assert found.converged.all()
    assert not run(CompiledDescent, FISTA(0.1, 50, 0.0), objective, 0 * codes).converged.any()


def test_numbers_that_are_none_stay_none():
    objective, codes = problem(Energy(0.02), torch.float64)
    objective.inputs[3] = torch.nan
    found = run(CompiledDescent, FISTA(0.1, 30, 1e-3), objective, codes)
    assert found.codes[3].isnan().all()
    assert not found.converged[3]
    assert found.codes[4:].isfinite().all()
