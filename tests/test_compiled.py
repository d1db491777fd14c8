"""The compiled loops give what the loops over torch's operations give."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_lightning import compiling, host
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.smooth import Quadratic
from sparse_lightning.solvers import FISTA, ISTA, Adaptive, Solution
from sparse_lightning.solvers.compiled import descend

ENERGIES = {
    "plain": Energy(0.02),
    "encoder": Energy(0.02, encoder_weight=1.0),
    "hinge": Energy(0.02, 10.0, 0.5, 5.0),
    "hinge alone": Energy(0.02, 3.0, 2.0),
}


def problem(weights: Energy, count: int = 70, dtype=torch.float64) -> tuple[Objective, Tensor]:
    """Samples of very different difficulty; one component is constant over the batch."""
    inputs, prediction = torch.randn(count, 30, dtype=dtype), torch.rand(count, 17, dtype=dtype)
    inputs *= torch.logspace(-2, 1, count, dtype=dtype)[:, None]
    prediction[::7] = 0
    prediction[:, 3] = 0.7
    return weights.bind(LinearDecoder(17, 30).to(dtype), inputs, prediction), prediction


def by_torch(monkeypatch, solver: ISTA | Adaptive, objective: Objective, start: Tensor) -> Solution:
    with monkeypatch.context() as patch:
        patch.setattr(host, "LARGEST_COMPILED", 0)
        assert objective.quadratic is None
        return solver(objective, start)


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("tolerance", [0.0, 1e-4, 3e-2])
@pytest.mark.parametrize("kind", ["fista", "ista", "adaptive"])
def test_equals_the_loop_over_operations(monkeypatch, weights, tolerance, kind):
    solver = {
        "fista": FISTA(0.3, 80, tolerance),
        "ista": ISTA(0.3, 80, tolerance),
        "adaptive": Adaptive(80, tolerance),
    }[kind]
    objective, start = problem(weights)
    kept = start.clone()
    assert objective.quadratic is not None
    found, expected = solver(objective, start), by_torch(monkeypatch, solver, objective, start)
    assert torch.equal(start, kept)
    if kind == "adaptive" and tolerance > 0 and objective.is_separable:
        # Its last iterations may be one exact solution.
        higher = objective.comparable(found.codes) - objective.comparable(expected.codes)
        assert higher.max() < tolerance**2
        assert (found.iterations <= expected.iterations).all()
        assert found.converged[expected.converged].all()
        return
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-9, atol=1e-11)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.converged, expected.converged)
    if tolerance == 3e-2:
        assert found.converged.any()


def alike(copies: bool = False) -> tuple[Objective, Tensor]:
    """Atoms that differ little, or twice the same."""
    decoder = LinearDecoder(17, 30).double()
    with torch.no_grad():
        decoder.weight.add_(torch.rand(30, 1))
        if copies:
            decoder.weight[:, 8:16] = decoder.weight[:, :8]
        inputs = (torch.rand(70, 17) * (torch.rand(70, 17) < 0.3)).double() @ decoder.weight.T
    inputs += 0.05 * torch.randn(70, 30)
    return Energy(0.001).bind(decoder, inputs), torch.zeros(70, 17).double()


def test_active_atoms_are_solved_for_exactly(monkeypatch):
    """Which saves most iterations where atoms are alike, and arrives at the minimum."""
    objective, start = alike()
    solver = Adaptive(5_000, 1e-6)
    found, slow = solver(objective, start), by_torch(monkeypatch, solver, objective, start)
    assert found.converged.all()
    assert found.iterations.double().mean() < 0.7 * slow.iterations.double().mean()
    lowest = by_torch(monkeypatch, Adaptive(50_000, 1e-12), objective, start)
    gaps = (objective.comparable(found.codes) - objective.comparable(lowest.codes)).abs()
    assert gaps.max() < 1e-7
    assert (gaps < 1e-13).double().mean() > 0.8


@pytest.mark.parametrize("restarts", [False, True])
def test_an_active_component_that_is_passed_by_at_zero(restarts):
    """Momentum takes the first component to 0 exactly, for one gradient."""
    quadratic = Quadratic(
        torch.tensor([[1.5, 0], [0, 1]]).double(), torch.tensor([[0.25, 1]]).double(), 0.0, None
    )
    momenta = torch.full((100,), 0.5).double()
    momenta[0] = 0
    start = torch.tensor([[5.5, 0]]).double()
    codes = descend(quadratic, start, 0.5, momenta, 0.0, restarts).codes
    torch.testing.assert_close(codes, torch.tensor([[1 / 6, 1]]).double())


def test_atoms_that_are_the_same_are_left_to_iterations():
    objective, start = alike(copies=True)
    found = Adaptive(5_000, 1e-5)(objective, start)
    assert found.codes.isfinite().all()
    assert found.converged.all()


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
def test_in_float32(monkeypatch, weights):
    objective, start = problem(weights, dtype=torch.float32)
    solver = FISTA(0.3, 200, 0.0)
    found, expected = solver(objective, start), by_torch(monkeypatch, solver, objective, start)
    assert found.codes.dtype == torch.float32
    torch.testing.assert_close(found.codes, expected.codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [ENERGIES["plain"], ENERGIES["hinge"]], ids=["plain", "hinge"])
def test_the_number_of_threads_changes_no_digit(weights):
    objective, start = problem(weights, count=1_200, dtype=torch.float32)
    assert start.numel() >= 2 * compiling.NUMBERS_PER_THREAD
    threads, codes = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            codes.append(FISTA(0.3, 50, 1e-4)(objective, start).codes)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*codes)


@pytest.mark.parametrize("weights", ENERGIES.values(), ids=ENERGIES)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_divergence_is_not_hidden(weights, tolerance):
    objective, start = problem(weights, dtype=torch.float32)
    codes = FISTA(1e4, 200, tolerance)(objective, start).codes
    assert not codes.isfinite().all()
    start[5, 2] = torch.nan
    assert FISTA(0.3, 20, tolerance)(objective, start).codes[5].isnan().any()


def test_torch_keeps_its_number_of_threads():
    """The first call of all is what would change it, so that a new process must tell."""
    program = (
        "import torch; from sparse_lightning import FISTA, Energy, LinearDecoder;"
        "objective = Energy(0.1).bind(LinearDecoder(4, 6), torch.rand(3, 6));"
        "FISTA(0.1)(objective, torch.zeros(3, 4)); print(torch.get_num_threads())"
    )
    run = partial(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True)
    printed = run(check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    assert printed.split() == ["1"]


def test_several_threads_may_infer():
    objective, start = problem(ENERGIES["hinge"], count=1_200)
    solver = FISTA(0.3, 20, 1e-6)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: solver(objective, start).codes, range(12)))
    for codes in found:
        assert torch.equal(codes, found[0])


def test_without_a_folder_for_it_nothing_is_cached(monkeypatch):
    def refuse(*, cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: ("compiled", function)

    monkeypatch.setattr(compiling, "njit", refuse)
    assert compiling.compiled(len) == ("compiled", len)


def test_held_samples_are_left_to_operations():
    """The hinge counts them, the compiled loops do not know them."""
    objective, start = problem(ENERGIES["hinge"])
    rows = torch.arange(60)
    assert objective.restrict(rows, start[60:]).quadratic is None


def test_samples_do_not_disturb_each_other():
    """Alone, in any order and in any company, a sample's code is the same to the last bit."""
    objective, start = problem(ENERGIES["plain"], dtype=torch.float32)
    solver, rows = Adaptive(200, 1e-5), torch.randperm(70)
    whole = solver(objective, start).codes
    some = objective.restrict(rows[:40], start[rows[40:]])
    # The step is of the Gram matrix, which is the same.
    assert torch.equal(solver(some, start[rows[:40]]).codes, whole[rows[:40]])
    assert torch.equal(
        solver(objective.restrict(rows[:1], start[1:]), start[rows[:1]]).codes, whole[rows[:1]]
    )


def test_takes_what_torch_has(monkeypatch):
    """Strided codes, and tensors that may not enter autograd."""
    with torch.inference_mode():
        objective, start = problem(ENERGIES["encoder"])
        strided = start.T.contiguous().T
        assert not strided.is_contiguous()
        codes = FISTA(0.3, 30, 0.0)(objective, strided).codes
    assert np.array_equal(codes, FISTA(0.3, 30, 0.0)(objective, start).codes)


def test_codes_of_less_precision_are_taken_as_they_are():
    objective, start = problem(ENERGIES["plain"])
    rounded = start.bfloat16()
    solution = FISTA(0.3, 30, 0.0)(objective, rounded)
    assert solution.codes.dtype == start.dtype
    assert torch.equal(solution.codes, FISTA(0.3, 30, 0.0)(objective, rounded.to(start)).codes)


def test_an_accelerator_gets_help_with_small_batches(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    codes = torch.empty(250, 128, device="meta")
    assert host.can_be_helped(codes), "about 2**20 multiplications a thread"
    assert not host.can_be_compiled(codes)
    assert not host.can_be_helped(torch.empty(260, 128, device="meta"))
    assert host.can_be_helped(torch.empty(10_000, 128)), "there is nothing else on the CPU"
    monkeypatch.setattr(host, "LARGEST_COMPILED", 128 * 128 * 4 - 1)
    assert not host.can_be_helped(codes)
    assert not host.can_be_helped(torch.empty(250, 128))


def test_a_large_dictionary_is_left_to_matrix_products(monkeypatch):
    objective, _ = problem(ENERGIES["plain"])
    monkeypatch.setattr(host, "LARGEST_COMPILED", 17 * 17 * 8)
    assert objective.quadratic is not None
    monkeypatch.setattr(host, "LARGEST_COMPILED", 17 * 17 * 8 - 1)
    assert objective.quadratic is None
