r"""Proximal gradient for quadratics on the CPU, compiled.

The smooth function is :math:`\sum_i \frac12 z_i^\top G z_i - c_i^\top z_i`, with or without the
variance hinge. Codes are sparse, so that a row of :math:`Z G` is a sum over the few atoms that are
active in that row, which a dense matrix product cannot see; and a sample whose iterations are all
made in one go stays in the cache. Without the hinge samples are independent, and each ends when it
has converged. With it they move in step, and each step takes two passes over the samples.

The quadratics may differ between samples by a few vectors of each
(`sparse_lightning.solvers.quasi_newton`).

These loops do what `sparse_lightning.solvers.constant` and `sparse_lightning.solvers.adaptive` do,
and are tested to give the same. The latter end sooner: once the same few atoms of a sample have
been active for a while, a Cholesky factor of their part of G gives the minimum over them, and the
next iteration tells whether it is the minimum over all.

All is in one file, since numba looks no further than that for whether compiled code is out of date.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from sparse_lightning.compiling import ROWS, compiled, in_parallel, inlined, run_in_threads
from sparse_lightning.moments import rounding_of_a_scatter
from sparse_lightning.smooth import Quadratic
from sparse_lightning.solvers.solution import Solution

# Iterations without a change of the active atoms after which these alone are solved for exactly,
# and the most atoms for which that takes less time than what it saves.
STEADY, LARGEST_SOLVED = 5, 20
# Pivots below this, relative, are rounding.
SINGULAR = 1e-6


class Rule(NamedTuple):
    """How to step, in the numbers' own type.

    Attributes:
        step: (n,) step size of each sample.
        shrinkage: (n,) step size times the weight of the l1 norm of each sample.
        tolerance: squared; 0 never stops.
        momenta: by iteration since the start, or since the last restart; one per iteration that
            may be taken.
        restarts: whether momentum restarts where it points uphill and convergence is judged by
            the residual of the fixed-point equation, rather than by the last change. Samples that
            are independent then keep their initial codes unless the last are as good.
    """

    step: np.ndarray
    shrinkage: np.ndarray
    tolerance: np.floating
    momenta: np.ndarray
    restarts: bool


class Hinge(NamedTuple):
    """The variance hinge: its weight, its threshold, and what passes for rounding in a scatter."""

    weight: float
    threshold: float
    rounding: float


def descend(
    quadratic: Quadratic,
    initial_codes: Tensor,
    step: float | Tensor,
    momenta: Tensor,
    tolerance: float,
    restarts: bool,
) -> Solution:
    """Minimise from ``initial_codes`` (n, l), which are left as they are; see `Rule`."""
    dtype = quadratic.gram.dtype
    gram, drive = (part.contiguous().numpy() for part in (quadratic.gram, quadratic.drive))
    codes = np.array(initial_codes.detach().to(dtype).numpy(), order="C")
    iterations = np.full(len(codes), len(momenta), np.int64)
    converged = np.zeros(len(codes), bool)
    rule = Rule(
        _of_each(step, codes),
        _of_each(step * quadratic.sparsity_weight, codes),
        gram.dtype.type(tolerance * tolerance),
        momenta.to(dtype).numpy(),
        restarts,
    )
    result = iterations, converged
    if quadratic.hinge is None:
        pairs = _pairs_of(quadratic)
        run_in_threads(_separable, codes.size, codes, gram, drive, pairs, rule, *result)
    else:
        hinge = Hinge(*quadratic.hinge, rounding_of_a_scatter(len(codes), dtype))
        run_in_threads(_coupled, codes.size, codes, gram, drive, rule, hinge, *result)
    return Solution(*(torch.from_numpy(part) for part in (codes, *result)))


def gradients(quadratic: Quadratic, codes: Tensor) -> Tensor:
    """Of the smooth function without its hinge, at codes (n, l) that are mostly 0, (n, l)."""
    out = torch.empty_like(codes, memory_format=torch.contiguous_format)
    arrays = [codes.contiguous(), quadratic.gram.contiguous(), quadratic.drive.contiguous()]
    codes_, gram_, drive_ = (array.numpy() for array in arrays)
    pairs = _pairs_of(quadratic)
    run_in_threads(_gradients, codes_.size, codes_, gram_, drive_, pairs, out.numpy())
    return out


def _pairs_of(quadratic: Quadratic) -> np.ndarray:
    pairs, drive = quadratic.pairs, quadratic.drive
    if pairs is None:
        pairs = drive.new_empty(len(drive), 0, drive.shape[1])
    return pairs.contiguous().numpy()


def _of_each(number: float | Tensor, codes: np.ndarray) -> np.ndarray:
    """One number for each sample."""
    numbers = np.empty(len(codes), codes.dtype)
    numbers[:] = number
    return numbers


@inlined
def _list_active(point, active):
    """List the components that are not 0, and return their number."""
    # Signed numbers might count from the end, which takes time to rule out.
    count = np.uint64(0)
    for j in range(len(point)):
        active[count] = j
        count += np.uint64(point[j] != 0)
    return np.int64(count)


@inlined
def _gradient(point, gram, drive, active, count, out):
    """Write G a - c to ``out``, by the rows of G where a is not 0."""
    length = len(point)
    for j in range(length):
        out[j] = -drive[j]
    k = 0
    while k + 4 <= count:
        first, second, third, fourth = active[k], active[k + 1], active[k + 2], active[k + 3]
        p, q, r, s = point[first], point[second], point[third], point[fourth]
        for j in range(length):
            out[j] += (
                p * gram[first, j] + q * gram[second, j] + r * gram[third, j] + s * gram[fourth, j]
            )
        k += 4
    while k < count:
        first = active[k]
        p = point[first]
        for j in range(length):
            out[j] += p * gram[first, j]
        k += 1


@inlined
def _add_pairs(point, pairs, active, count, out):
    """Add to ``out`` what a sample's own pairs make of the point."""
    for k in range(0, len(pairs), 2):
        added, taken = point.dtype.type(0), point.dtype.type(0)
        for a in range(count):
            j = active[a]
            added += pairs[k, j] * point[j]
            taken += pairs[k + 1, j] * point[j]
        for j in range(len(point)):
            out[j] += added * pairs[k, j] - taken * pairs[k + 1, j]


@in_parallel
def _gradients(codes, gram, drive, pairs, out):
    """See `gradients`."""
    count, length = codes.shape
    for chunk in prange((count + ROWS - 1) // ROWS):
        active = np.empty(length + 1, np.int32)
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            num_active = _list_active(codes[i], active)
            _gradient(codes[i], gram, drive[i], active, num_active, out[i])
            _add_pairs(codes[i], pairs[i], active, num_active, out[i])


@inlined
def _step(codes, point, gradient, rule, i):
    """One proximal step of a sample.

    ``codes`` become the new ones, ``gradient`` their change. Returns the squares of what has moved
    and of what it is compared with, whose ratio is held against the tolerance; whether (by how
    much, rather, below 0) momentum points uphill; and how many atoms became active or ceased to be.
    """
    zero, one = point.dtype.type(0), point.dtype.type(1)
    old_size, new_size, moved, corrected, uphill = zero, zero, zero, zero, zero
    # Counted in the codes' own type, of which as many fit into a register.
    step, shrinkage, switched = rule.step[i], rule.shrinkage[i], zero
    for j in range(len(codes)):
        old = codes[j]
        new = point[j] - step * gradient[j] - shrinkage
        new = zero if new < zero else new
        change, correction = new - old, new - point[j]
        old_size += old * old
        new_size += new * new
        moved += change * change
        corrected += correction * correction
        uphill += change * correction
        switched += one if (old > zero) != (new > zero) else zero
        codes[j] = new
        gradient[j] = change
    if rule.restarts:
        return corrected, new_size, uphill, switched
    return moved, old_size, zero, switched


@inlined
def _has_converged(moved, size, rule):
    if rule.restarts:
        return rule.tolerance > 0 and moved <= rule.tolerance * size
    return rule.tolerance > 0 and (moved < rule.tolerance * size or moved == 0)


@in_parallel
def _separable(codes, gram, drive, pairs, rule, iterations, converged):
    """Each sample by itself, until it has converged."""
    count, length = codes.shape
    for chunk in prange((count + ROWS - 1) // ROWS):
        point, change = np.empty(length, codes.dtype), np.empty(length, codes.dtype)
        active, matrix = np.empty(length + 1, np.int32), np.empty((LARGEST_SOLVED, LARGEST_SOLVED))
        start = np.empty(length, codes.dtype)
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            code, own, own_drive = codes[i], pairs[i], drive[i]
            point[:], start[:] = code, code
            age, steady, num_active = 0, 0, 0
            before = codes.dtype.type(0)
            weight = rule.shrinkage[i] / rule.step[i]
            for iteration in range(len(rule.momenta)):
                # From then on the point has the components of the code, which stay the same. One of
                # them may be 0 just now.
                if steady < 2:
                    num_active = _list_active(code if steady == 1 else point, active)
                _gradient(point, gram, own_drive, active, num_active, change)
                _add_pairs(point, own, active, num_active, change)
                if iteration == 0:
                    before = _energy_by(change, code, own_drive, weight)
                moved, size, uphill, switched = _step(code, point, change, rule, i)
                if _has_converged(moved, size, rule):
                    iterations[i], converged[i] = iteration + 1, True
                    break
                steady = steady + 1 if switched == 0 else 0
                momentum = rule.momenta[age]
                if uphill < 0:
                    momentum, age = gram.dtype.type(0), age >> 1
                age += 1
                if rule.restarts and rule.tolerance > 0 and steady == STEADY:
                    atoms = active[:num_active]
                    if _solve(code, gram, own, own_drive, weight, atoms, matrix):
                        momentum, age = gram.dtype.type(0), 0
                for j in range(length):
                    point[j] = code[j] + momentum * change[j]
            if rule.restarts:
                after = _energy(code, gram, own, own_drive, weight, active, change)
                # Also where it is not a number.
                if not after <= before:
                    code[:] = start


@compiled
def _energy(code, gram, pairs, drive, weight, active, gradient):
    """Of a code, up to a constant."""
    count = _list_active(code, active)
    _gradient(code, gram, drive, active, count, gradient)
    _add_pairs(code, pairs, active, count, gradient)
    return _energy_by(gradient, code, drive, weight)


@inlined
def _energy_by(gradient, code, drive, weight):
    """Of a code, up to a constant, by its gradient."""
    total = code.dtype.type(0)
    for j in range(len(code)):
        total += code[j] * ((gradient[j] - drive[j]) / 2 + weight)
    return total


@compiled
def _solve(code, gram, pairs, drive, weight, active, factor):
    """Minimise over the active components alone, by Cholesky; whether all of them stay positive.

    Where they do not, the code is left as it is.
    """
    count = len(active)
    if count > len(factor):
        return False
    solution = np.empty(count)
    for a in range(count):
        solution[a] = drive[active[a]] - weight
        for b in range(a + 1):
            total = np.float64(gram[active[a], active[b]])
            for k in range(0, len(pairs), 2):
                total += np.float64(pairs[k, active[a]]) * pairs[k, active[b]]
                total -= np.float64(pairs[k + 1, active[a]]) * pairs[k + 1, active[b]]
            whole = total
            for k in range(b):
                total -= factor[a, k] * factor[b, k]
            if a > b:
                factor[a, b] = total / factor[b, b]
            elif total > SINGULAR * whole:
                factor[a, a] = np.sqrt(total)
            else:
                return False
    for a in range(count):
        for k in range(a):
            solution[a] -= factor[a, k] * solution[k]
        solution[a] /= factor[a, a]
    for a in range(count - 1, -1, -1):
        for k in range(a + 1, count):
            solution[a] -= factor[k, a] * solution[k]
        solution[a] /= factor[a, a]
        if not solution[a] > 0:
            return False
    for a in range(count):
        code[active[a]] = solution[a]
    return True


@in_parallel
def _coupled(codes, gram, drive, rule, hinge, iterations, converged):
    """All samples in step, since the hinge's gradient needs the moments of the batch.

    The moments of each chunk of samples are taken about the last mean, which loses no digits.
    """
    count, length = codes.shape
    chunks = (count + ROWS - 1) // ROWS
    points, changes = codes.copy(), np.zeros_like(codes)
    sums, squares = np.zeros((chunks, length)), np.zeros((chunks, length))
    judged = np.zeros((chunks, 3))
    mean, pull = np.zeros(length, codes.dtype), np.zeros(length, codes.dtype)
    for i in range(count):
        mean += codes[i]
    mean /= count
    momentum, age = gram.dtype.type(0), 0
    for iteration in range(len(rule.momenta)):
        for chunk in prange(chunks):
            rows = range(chunk * ROWS, min(count, (chunk + 1) * ROWS))
            _extrapolate(rows, codes, changes, momentum, converged, points)
            _deviate(rows, points, mean, sums[chunk], squares[chunk])
        _pull_of(hinge, count, sums, squares, mean, pull)
        for chunk in prange(chunks):
            rows = range(chunk * ROWS, min(count, (chunk + 1) * ROWS))
            active = np.empty(length + 1, np.int32)
            judged[chunk] = 0
            for i in rows:
                if converged[i]:
                    continue
                num_active = _list_active(points[i], active)
                _gradient(points[i], gram, drive[i], active, num_active, changes[i])
                for j in range(length):
                    changes[i, j] += pull[j] * (points[i, j] - mean[j])
                moved, size, uphill, _ = _step(codes[i], points[i], changes[i], rule, i)
                judged[chunk, 0] += moved
                judged[chunk, 1] += size
                judged[chunk, 2] += uphill
                if not rule.restarts and _has_converged(moved, size, rule):
                    iterations[i], converged[i] = iteration + 1, True
                    points[i] = codes[i]
        moved, size, uphill = judged[:, 0].sum(), judged[:, 1].sum(), judged[:, 2].sum()
        if rule.restarts and _has_converged(moved, size, rule):
            iterations[:], converged[:] = iteration + 1, True
        if converged.all():
            break
        momentum = rule.momenta[age]
        if uphill < 0:
            momentum, age = gram.dtype.type(0), age >> 1
        age += 1


@compiled
def _extrapolate(rows, codes, changes, momentum, converged, points):
    """Move the points of the samples that have not converged on from their codes."""
    for i in rows:
        if not converged[i]:
            for j in range(codes.shape[1]):
                points[i, j] = codes[i, j] + momentum * changes[i, j]


@compiled
def _deviate(rows, points, mean, sums, squares):
    """Sums of the points' deviations from ``mean`` and of their squares, over some samples."""
    sums[:], squares[:] = 0, 0
    for i in rows:
        for j in range(len(mean)):
            deviation = points[i, j] - mean[j]
            sums[j] += deviation
            squares[j] += deviation * deviation


@compiled
def _pull_of(hinge, count, sums, squares, mean, pull):
    """Update ``mean``, and ``pull``: the hinge's gradient by the deviation from the mean.

    See `sparse_lightning.moments.relative_shortfall`.
    """
    for j in range(len(mean)):
        total, square = 0.0, 0.0
        for chunk in range(len(sums)):
            total += sums[chunk, j]
            square += squares[chunk, j]
        mean[j] += total / count
        scatter = square - total * total / count
        scatter -= hinge.rounding * (mean[j] * count) ** 2
        pull[j] = 0
        if scatter > 0 or scatter != scatter:
            shortfall = hinge.threshold * np.sqrt((count - 1) / scatter) - 1
            if shortfall > 0 or shortfall != shortfall:
                pull[j] = -2 * hinge.weight / (count - 1) * shortfall
