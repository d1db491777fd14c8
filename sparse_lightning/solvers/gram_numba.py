r"""Proximal gradient for quadratics on the CPU, compiled by numba. For speed only.

The smooth function is :math:`\sum_i \frac12 z_i^\top G z_i - c_i^\top z_i`, with or without the
variance hinge. It is that of a linear decoder, or of a proximal Newton step. Codes are sparse: a
row of :math:`Z G` is a sum over the few atoms that are active in that row, where a dense product
adds all. All iterations of a sample are made in one go, so that the sample stays in the cache. A
training step of a linear decoder takes less than half of its time this way.

These loops mirror `sparse_lightning.solvers.proximal_gradient.ProximalGradient.iterate` with a
constant step, its convergence test `has_converged`, momentum of `FISTA` and of `Adaptive`,
`sparse_lightning.penalties.NonNegativeL1.prox` and
`sparse_lightning.variance.VarianceHinge.gradient`; tests compare them. With restarts they end
sooner: once the same few atoms of a sample have been active for a while, a Cholesky factor of
their part of G gives the minimum over these atoms. The next iteration shows whether it is the
minimum over all atoms.

A process that was forked from one that used these loops does not use them, see `forked`. All loops
are in one file, since numba looks at this file only when it decides whether compiled code is stale.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, local
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from sparse_lightning.datafits import QuadraticDataFit
from sparse_lightning.solvers.base import Solution, has_known_terms
from sparse_lightning.solvers.forked import CompiledThreads
from sparse_lightning.solvers.numba_cache import keep_on_disk
from sparse_lightning.variance import rounding_of_scatter

# Bytes of a Gram matrix: rows of it are read for every sample, and must stay in the cache.
LARGEST_GRAM = 2**26
# Iterations without a change of the active atoms after which these alone are solved for exactly,
# and the most atoms for which that takes less time than what it saves.
STEADY, LARGEST_SOLVED = 5, 20
# Pivots below this, relative, are rounding.
SINGULAR = 1e-6
# Samples that one thread takes at a time; sums do not depend on how many threads there are.
ROWS = 32
# Numbers, such as those of a batch of codes, for which another thread pays.
NUMBERS_PER_THREAD = 2**13
# NaN and infinities keep their meaning: they say that inference diverged.
OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}
# One of numba's ways to run threads, which it takes where it finds no other, allows one caller.
LOCK = Lock()
# How many threads numba has been told to take, a number that each caller has of its own.
TOLD = local()


class Rule(NamedTuple):
    """How to step, in the numbers' own type.

    Attributes:
        step: (n,) step size of each sample.
        threshold: (n,) step size times the weight of the penalty of each sample.
        tolerance: squared; 0 never stops.
        momenta: by age; one per iteration that may be taken.
        restarts: whether momentum restarts where it points uphill. Coupled samples then converge
            as one. Nothing keeps energies from ending higher than they began: that is for the
            caller to see.
    """

    step: np.ndarray
    threshold: np.ndarray
    tolerance: np.floating
    momenta: np.ndarray
    restarts: bool


class Hinge(NamedTuple):
    """The variance hinge: its weight, its threshold, and what passes for rounding in a scatter."""

    weight: float
    threshold: float
    rounding: float


def can_run(device: torch.device) -> bool:
    """Whether these loops are compiled, for that device, and have their threads."""
    is_compiled = not numba.config.DISABLE_JIT
    return device.type == "cpu" and is_compiled and not CompiledThreads.lost


def applies(objective: Any, codes: Tensor) -> bool:
    """Whether these loops can minimise an objective.

    They know a quadratic data fit, the non-negative l1 penalty, the encoder term and the hinge of a
    batch that this process has all of, on the CPU.
    """
    return (
        can_run(codes.device)
        and has_known_terms(objective)
        and type(objective.datafit) is QuadraticDataFit
        and codes.shape == objective.datafit.linear.shape
        and objective.processes is None
        and objective.frozen is None
        and codes.shape[1] ** 2 * codes.element_size() <= LARGEST_GRAM
    )


def descend(objective: Any, initial_codes: Tensor, step: float, solver: Any) -> Solution:
    """Minimise from ``initial_codes`` (n, l) with a constant step, as ``solver`` would."""
    gram, linear = objective.datafit.gram, objective.datafit.linear
    if (encoder := objective.encoder_penalty) is not None:
        gram = gram.clone()
        gram.diagonal().add_(encoder.curvature)
        linear = linear + encoder.curvature * encoder.encoder_codes
    sizes = linear.new_full((len(linear),), step)
    thresholds = sizes * objective.sparsity_weight
    # In float64, so that a type is as exact as its own digits allow.
    momenta = solver.momenta(torch.float64, linear.device).numpy()
    limits = solver.tolerance, momenta, solver.restarts
    return minimise(gram, linear, initial_codes, sizes, thresholds, *limits, objective.energy.hinge)


def minimise(
    gram: Tensor,
    linear: Tensor,
    initial_codes: Tensor,
    steps: Tensor,
    thresholds: Tensor,
    tolerance: float,
    momenta: np.ndarray,
    restarts: bool,
    hinge: Any = None,
) -> Solution:
    """Minimise the quadratics with l1 terms over non-negative codes; see `Rule`.

    Args:
        gram: G, (l, l).
        linear: c, (n, l).
        initial_codes: (n, l), left as they are.
        steps, thresholds: (n,).
        tolerance, momenta, restarts: see `Rule`.
        hinge: a `sparse_lightning.variance.VarianceHinge`, None without one.
    """
    dtype = gram.dtype
    gram_, linear_ = (part.contiguous().numpy() for part in (gram, linear))
    codes = np.array(initial_codes.detach().to(dtype).numpy(), order="C")
    iterations = np.full(len(codes), len(momenta), np.int64)
    converged = np.zeros(len(codes), bool)
    number = gram_.dtype.type
    sizes = steps.to(dtype).contiguous().numpy(), thresholds.to(dtype).contiguous().numpy()
    rule = Rule(*sizes, number(tolerance * tolerance), np.array(momenta, number), restarts)
    result = iterations, converged
    if hinge is None:
        run_in_threads(_separable, codes.size, codes, gram_, linear_, rule, *result)
    else:
        coupled = Hinge(hinge.weight, hinge.threshold, rounding_of_scatter(len(codes), dtype))
        run_in_threads(_coupled, codes.size, codes, gram_, linear_, rule, coupled, *result)
    return Solution(*(torch.from_numpy(part) for part in (codes, *result)))


def run_in_threads(function: Callable, size: int, *arguments: object) -> None:
    """Call with as many threads as torch uses and that many numbers are worth.

    Torch is left with its own.
    """
    allowed = torch.get_num_threads()
    threads = min(allowed, numba.config.NUMBA_NUM_THREADS, max(1, size // NUMBERS_PER_THREAD))
    with LOCK:
        if threads != getattr(TOLD, "threads", None):
            numba.set_num_threads(threads)
            # The first call of all sets the number of OpenMP's threads, which is torch's too.
            if torch.get_num_threads() != allowed:
                torch.set_num_threads(allowed)
            TOLD.threads = threads
        CompiledThreads.begun = True
        function(*arguments)


def compiled(function: Callable, **options: bool | str) -> Callable:
    """Compile at the first call, and keep the code on disk where there is a folder for it."""
    return keep_on_disk(njit(**OPTIONS, **options)(function))


def inlined(function: Callable) -> Callable:
    """Compile as a part of whatever calls it: to hand over arrays takes longer than small loops."""
    return compiled(function, inline="always")


def in_parallel(function: Callable) -> Callable:
    """Compile a function whose ``prange`` is to be shared between threads."""
    return compiled(function, parallel=True)


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
def _gradient(point, gram, linear, active, count, out):
    """Write G a - c to ``out``, by the rows of G where a is not 0."""
    length = len(point)
    for j in range(length):
        out[j] = -linear[j]
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
def _step(codes, point, gradient, rule, i):
    """One proximal step of a sample.

    ``codes`` become the new ones, ``gradient`` their change. Returns the squares of what has moved
    and of what it is compared with; whether (by how much, rather, below 0) momentum points uphill;
    and how many atoms became active or ceased to be.
    """
    zero, one = point.dtype.type(0), point.dtype.type(1)
    old_size, moved, uphill = zero, zero, zero
    # Counted in the codes' own type, of which as many fit into a register.
    step, threshold, switched = rule.step[i], rule.threshold[i], zero
    for j in range(len(codes)):
        old = codes[j]
        new = point[j] - step * gradient[j] - threshold
        new = zero if new < zero else new
        change, correction = new - old, new - point[j]
        old_size += old * old
        moved += change * change
        uphill += change * correction
        switched += one if (old > zero) != (new > zero) else zero
        codes[j] = new
        gradient[j] = change
    return moved, old_size, uphill, switched


@inlined
def _has_converged(moved, size, rule):
    return rule.tolerance > 0 and (moved < rule.tolerance * size or moved == 0)


@in_parallel
def _separable(codes, gram, linear, rule, iterations, converged):
    """Each sample by itself, until it has converged."""
    count, length = codes.shape
    for chunk in prange((count + ROWS - 1) // ROWS):
        point, change = np.empty(length, codes.dtype), np.empty(length, codes.dtype)
        active, matrix = np.empty(length + 1, np.int32), np.empty((LARGEST_SOLVED, LARGEST_SOLVED))
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            code, own_linear = codes[i], linear[i]
            point[:] = code
            age, steady, num_active = 0, 0, 0
            weight = rule.threshold[i] / rule.step[i]
            for iteration in range(len(rule.momenta)):
                # From then on the point has the components of the code, which stay the same. One of
                # them may be 0 just now.
                if steady < 2:
                    num_active = _list_active(code if steady == 1 else point, active)
                _gradient(point, gram, own_linear, active, num_active, change)
                moved, size, uphill, switched = _step(code, point, change, rule, i)
                if _has_converged(moved, size, rule):
                    iterations[i], converged[i] = iteration + 1, True
                    break
                steady = steady + 1 if switched == 0 else 0
                momentum = rule.momenta[age]
                age += 1
                if rule.restarts:
                    if uphill < 0:
                        momentum, age = gram.dtype.type(0), 0
                    if rule.tolerance > 0 and steady == STEADY:
                        atoms = active[:num_active]
                        if _solve(code, gram, own_linear, weight, atoms, matrix):
                            momentum, age = gram.dtype.type(0), 0
                for j in range(length):
                    point[j] = code[j] + momentum * change[j]


@compiled
def _solve(code, gram, linear, weight, active, factor):
    """Minimise over the active components alone, by Cholesky; whether all of them stay positive.

    Where they do not, the code is left as it is.
    """
    count = len(active)
    if count > len(factor):
        return False
    solution = np.empty(count)
    for a in range(count):
        solution[a] = linear[active[a]] - weight
        for b in range(a + 1):
            total = np.float64(gram[active[a], active[b]])
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
def _coupled(codes, gram, linear, rule, hinge, iterations, converged):
    """All samples in step, since the hinge's gradient needs the moments of the batch.

    The moments of each chunk of samples are taken about the last mean, which loses no digits.
    """
    count, length = codes.shape
    chunks = (count + ROWS - 1) // ROWS
    points = codes.copy()
    sums, squares = np.zeros((chunks, length)), np.zeros((chunks, length))
    mean, pull = np.zeros(length, codes.dtype), np.zeros(length, codes.dtype)
    ages, judged = np.zeros(count, np.int64), np.zeros((chunks, 2))
    for i in range(count):
        mean += codes[i]
    mean /= count
    for iteration in range(len(rule.momenta)):
        for chunk in prange(chunks):
            rows = range(chunk * ROWS, min(count, (chunk + 1) * ROWS))
            _deviate(rows, points, mean, sums[chunk], squares[chunk])
        _pull_of(hinge, count, sums, squares, mean, pull)
        for chunk in prange(chunks):
            active, change = np.empty(length + 1, np.int32), np.empty(length, codes.dtype)
            judged[chunk] = 0
            for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
                if converged[i]:
                    continue
                num_active = _list_active(points[i], active)
                _gradient(points[i], gram, linear[i], active, num_active, change)
                for j in range(length):
                    change[j] += pull[j] * (points[i, j] - mean[j])
                moved, size, uphill, _ = _step(codes[i], points[i], change, rule, i)
                momentum = rule.momenta[ages[i]]
                ages[i] += 1
                if rule.restarts and uphill < 0:
                    momentum, ages[i] = gram.dtype.type(0), 0
                judged[chunk, 0] += moved
                judged[chunk, 1] += size
                if not rule.restarts and _has_converged(moved, size, rule):
                    iterations[i], converged[i] = iteration + 1, True
                    momentum = gram.dtype.type(0)
                for j in range(length):
                    points[i, j] = codes[i, j] + momentum * change[j]
        if rule.restarts and _has_converged(judged[:, 0].sum(), judged[:, 1].sum(), rule):
            iterations[:], converged[:] = iteration + 1, True
        if converged.all():
            break


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

    Mirrors `sparse_lightning.variance.VarianceHinge.gradient`.
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
