"""A quadratic for each sample, against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_lightning.smooth import Quadratic, largest_eigenvalue_bound
from sparse_lightning.solvers.compiled import LARGEST_SOLVED, descend, gradients
from sparse_lightning.solvers.quasi_newton import LEAST_SCALE, MOST_SCALE, QuasiNewton

SAMPLES, LENGTH = 40, 9


def positive_definite(count: int, length: int) -> Tensor:
    root = torch.randn(count, length, length + 3).double()
    return root @ root.mT / length


def dense(model: QuasiNewton) -> Tensor:
    """B of each sample, (n, l, l)."""
    added, removed = model.pairs[:, ::2], model.pairs[:, 1::2]
    return model.scale[:, :, None] * (model.hessian + added.mT @ added - removed.mT @ removed)


def steps_of(count: int, length: int = LENGTH) -> list[Tensor]:
    return list(torch.randn(count, SAMPLES, length).double())


def learned(count: int, length: int = LENGTH) -> tuple[QuasiNewton, Tensor, list[Tensor]]:
    """After that many steps in functions whose second derivatives, (n, l, l), differ."""
    truth, steps = positive_definite(SAMPLES, length), steps_of(count, length)
    model = QuasiNewton.of(truth.mean(0), 0.5 + torch.rand(SAMPLES, 1).double())
    for step in steps:
        turned = torch.einsum("nij,nj->ni", truth, step)
        model = model.taught(step, turned, model.product(step), torch.ones(SAMPLES).bool())
    return model, truth, steps


def test_products():
    model, _, _ = learned(3)
    (step,) = steps_of(1)
    step[::2, ::3] = 0
    torch.testing.assert_close(model.product(step), torch.einsum("nij,nj->ni", dense(model), step))


def test_it_learns_as_the_dense_formula_says():
    """Nocedal & Wright (2006), eq. 6.19."""
    model, truth, _ = learned(2)
    matrix, (step,) = dense(model), steps_of(1)
    turned, expected = (torch.einsum("nij,nj->ni", m, step) for m in (truth, matrix))
    outer = 0.0
    for vector, sign in ((turned, 1), (expected, -1)):
        square = torch.einsum("ni,nj->nij", vector, vector)
        outer += sign * square / (vector * step).sum(1)[:, None, None]
    taught = model.taught(step, turned, model.product(step), torch.ones(SAMPLES).bool())
    torch.testing.assert_close(dense(taught), matrix + outer)
    torch.testing.assert_close(taught.product(step), turned)
    assert (torch.linalg.eigvalsh(dense(taught)) > 0).all()


def test_where_it_may_not_learn_it_stays():
    model, truth, _ = learned(2)
    (step,) = steps_of(1)
    turned = torch.einsum("nij,nj->ni", truth, step)
    turned[0] *= -1  # concave
    turned[1] *= 0.04 * (model.product(step)[1] @ step[1]) / (turned[1] @ step[1])  # flat
    turned[2] = torch.nan
    step[3] = 0
    turned[5] = torch.inf * step[5].sign()
    may_learn = torch.ones(SAMPLES).bool()
    may_learn[4] = False
    taught = model.taught(step, turned, model.product(step), may_learn)
    torch.testing.assert_close(dense(taught)[:6], dense(model)[:6])
    assert torch.equal(taught.largest[:6], model.largest[:6])
    assert ((dense(taught) - dense(model)).abs().amax((1, 2)) > 0)[6:].all()


@pytest.mark.parametrize(
    ("turned", "scale"),
    [
        (3.0, 1.5),
        (80.0, MOST_SCALE),
        (-1.0, LEAST_SCALE),
        (torch.nan, 1.2),
    ],
)
def test_scales_are_measured(turned, scale):
    """With s = (1, 0) and H = 2, of which s'Hs is 2."""
    model = QuasiNewton.of(2 * torch.eye(2), torch.full((1, 1), 1.2))
    step = torch.tensor([[1.0, 0.0]])
    measured = model.rescaled(step, turned * step, model.product(step))
    assert float(measured.scale) == pytest.approx(scale)
    still = model.rescaled(0 * step, 0 * step, 0 * step)
    assert float(still.scale) == pytest.approx(1.2), "0/0 says nothing"


def test_stiffened_and_restricted():
    model, _, _ = learned(2)
    where = torch.arange(SAMPLES)[:, None] % 2 == 0
    matrix = torch.where(where[:, :, None], 1.5, 1.0) * dense(model)
    stiffened = model.stiffened(1.5, where)
    torch.testing.assert_close(dense(stiffened), matrix)
    rows = torch.tensor([3, 1, 7])
    torch.testing.assert_close(dense(stiffened.restrict(rows)), matrix[rows])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_eigenvalue_is_above_the_largest(count):
    model, _, _ = learned(count)
    eigenvalues = torch.linalg.eigvalsh(dense(model) / model.scale[:, :, None])[:, -1]
    assert (eigenvalues <= model.largest).all()
    first = largest_eigenvalue_bound(model.hessian)
    added = model.pairs[:, ::2].square().sum((1, 2))
    torch.testing.assert_close(model.largest, first + added)
    rows = torch.tensor([3, 1, 7])
    assert torch.equal(model.restrict(rows).largest, model.largest[rows])


def test_without_any_curvature_there_is_none():
    assert QuasiNewton.of(torch.zeros(3, 3), torch.ones(5, 1)) is None


@pytest.mark.parametrize("length", [LENGTH, 90])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_minima_meet_the_optimality_conditions(count, length):
    """Of few atoms, which are solved for exactly, and of many, where the step is all there is."""
    model, _, _ = learned(count, length)
    codes = torch.rand(SAMPLES, length).double() * (torch.rand(SAMPLES, length) < 0.5)
    gradient, weight = torch.randn(SAMPLES, length).double(), 0.3
    new = model.minimum(codes, gradient, weight, 3e-5)
    slope = gradient + torch.einsum("nij,nj->ni", dense(model), new - codes) + weight
    assert (new >= 0).all()
    active = new > 0
    assert length == LENGTH or active.sum(1).min() > LARGEST_SOLVED
    assert 0.1 < active.double().mean() < 0.9
    close = 1e-3 * slope.abs().max()
    assert slope[active].abs().max() < close
    assert slope[~active].min() > -close


def test_compiled_loops_with_pairs_equal_a_gram_matrix_of_each_sample():
    model, _, _ = learned(4)
    gram, drive = dense(model) / model.scale[:, :, None], torch.randn(SAMPLES, LENGTH).double()
    codes, momenta = torch.rand(SAMPLES, LENGTH).double(), torch.arange(300).double()
    momenta = momenta / (momenta + 3)
    step = 1 / torch.linalg.eigvalsh(gram)[:, -1]
    of_all = Quadratic(model.hessian, drive, 0.2, None, model.pairs)
    slopes = torch.einsum("nij,nj->ni", gram, codes) - drive
    torch.testing.assert_close(gradients(of_all, codes), slopes)
    found = descend(of_all, codes, step, momenta, 1e-7, True)
    for i in range(SAMPLES):
        alone = Quadratic(gram[i].contiguous(), drive[i : i + 1], 0.2, None)
        expected = descend(alone, codes[i : i + 1], float(step[i]), momenta, 1e-7, True)
        torch.testing.assert_close(found.codes[i : i + 1], expected.codes, rtol=1e-6, atol=1e-8)
    assert found.converged.all()
