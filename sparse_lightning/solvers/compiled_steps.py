"""Steps by measured curvature, compiled: what `sparse_lightning.solvers.pace` does, in two passes.

Between two gradients a batch of codes is small work, for which torch takes some forty operations,
each of them long to call. Here a sample is looked at once before and once after its step. That
gives what torch's operations give, and is tested to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numba import prange
from torch import Tensor

from sparse_lightning.compiling import ROWS, compiled, in_parallel, run_in_threads
from sparse_lightning.solvers.pace import FALL, LARGEST_RISE, LEAST_CHANGE, RISE_AT_RESTART

if TYPE_CHECKING:
    from sparse_lightning.solvers.adaptive_descent import CompiledDescent


class Where(NamedTuple):
    """Codes, points, and gradients of the samples, (n, l) each; the last two as they were."""

    codes: np.ndarray
    new: np.ndarray
    point: np.ndarray
    gradient: np.ndarray
    last_point: np.ndarray
    last_gradient: np.ndarray


class Rates(NamedTuple):
    """How the curvature follows what is measured, in the codes' own type.

    As arguments: what is compiled is kept on disk and does not notice that they change elsewhere.
    """

    largest_rise: np.floating
    fall: np.floating
    rise_at_restart: np.floating

    @classmethod
    def of(cls, codes: Tensor) -> Self:
        return cls(*codes.new_tensor((LARGEST_RISE, FALL, RISE_AT_RESTART)).numpy())


class How(NamedTuple):
    """Of each sample, (n, 1) each; see `sparse_lightning.solvers.pace.MeasuredPace`."""

    curvature: np.ndarray
    age: np.ndarray
    rests: np.ndarray
    has_restarted: np.ndarray


def step_down(descent: CompiledDescent) -> Tensor:
    """One proximal step of each sample by its curvature, which is measured first."""
    pace, is_first = descent.pace, descent.pace.point is None
    # Of one layout, or loops would be compiled for another one.
    descent.gradient = descent.gradient.contiguous()
    if is_first:
        pace.point, pace.gradient = descent.point.clone(), descent.gradient.clone()
    new = descent.spare
    weight = new.new_tensor(descent.objective.sparsity_weight).numpy()[()]
    arguments = _how(pace), Rates.of(new), descent.held.numpy(), weight, not is_first
    run_in_threads(_step_down, new.numel(), _where(descent, new), *arguments)
    return new


def carry_on(descent: CompiledDescent, new: Tensor, risen: Tensor | None) -> None:
    """Hold the samples that have converged, and extrapolate the others."""
    may_end = np.full(len(new), descent.tolerance > 0)
    if risen is not None:
        # A sample that was put back has not moved either.
        may_end &= ~risen.numpy()[:, 0]
    tolerance = new.new_tensor(descent.tolerance**2).numpy()[()]
    least = new.new_tensor(LEAST_CHANGE**2).numpy()[()]
    settling = descent.settlings.numpy()[int(descent.iteration)], least
    state = descent.held.numpy(), descent.ended.numpy(), int(descent.iteration)
    arguments = may_end, tolerance, settling, descent.pace.momenta.numpy(), *state
    run_in_threads(_carry_on, new.numel(), _where(descent, new), _how(descent.pace), *arguments)


def _where(descent: CompiledDescent, new: Tensor) -> Where:
    own = descent.codes, new, descent.point, descent.gradient
    return Where(*(part.numpy() for part in (*own, descent.pace.point, descent.pace.gradient)))


def _how(pace: object) -> How:
    return How(*(getattr(pace, name).numpy() for name in How._fields))


@in_parallel
def _step_down(where, how, rates, held, weight, has_last):
    """See `step_down`; the last points and gradients become these."""
    count = len(where.codes)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            _step_of_one(where, how, rates, i, weight, has_last, held[i])


@compiled
def _step_of_one(where, how, rates, i, weight, has_last, is_held):
    # Numba loses what a parallel loop itself writes to arrays of a tuple.
    point, gradient, new, codes = where.point[i], where.gradient[i], where.new[i], where.codes[i]
    last_point, last_gradient = where.last_point[i], where.last_gradient[i]
    if has_last:
        _measure(point, gradient, last_point, last_gradient, how, rates, i)
    step = point.dtype.type(1) / how.curvature[i, 0]
    shrinkage, zero = step * weight, point.dtype.type(0)
    for j in range(len(point)):
        last_point[j], last_gradient[j] = point[j], gradient[j]
        lower = point[j] - step * gradient[j] - shrinkage
        # Not a number stays what it is.
        new[j] = zero if lower < zero else lower
        if is_held:
            new[j] = codes[j]


@compiled
def _measure(point, gradient, last_point, last_gradient, how, rates, i):
    """Follow the curvature between the last point and this one."""
    turned, moved = point.dtype.type(0), point.dtype.type(0)
    for j in range(len(point)):
        step = point[j] - last_point[j]
        turned += step * (gradient[j] - last_gradient[j])
        moved += step * step
    old = how.curvature[i, 0]
    measured = turned / moved if moved > 0 else point.dtype.type(0)
    if measured > old:
        how.curvature[i, 0] = min(measured, rates.largest_rise * old)
    elif how.rests[i, 0]:
        how.curvature[i, 0] = rates.rise_at_restart * old
    elif not how.has_restarted[i, 0]:
        # Also where it is not a number.
        fallen = rates.fall * old
        how.curvature[i, 0] = fallen if measured < fallen else measured


@in_parallel
def _carry_on(where, how, may_end, tolerance, settling, momenta, held, ended, iteration):
    """See `carry_on`; the points become the extrapolated ones.

    ``tolerance`` is a square, and ``settling`` two: of the size up to which samples settle, and
    of `LEAST_CHANGE`.
    """
    count = len(where.codes)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            corrected, changed, size, slope = _moves(where, i)
            has_ended = may_end[i] and corrected <= tolerance * size
            if has_ended and not held[i]:
                ended[i] = iteration
            held[i] = has_ended
            # A sample that is held has no change to go on with.
            is_uphill = slope < 0 and not has_ended
            is_taken_back = changed < settling[1] * corrected
            _rest(how, i, is_uphill, is_taken_back and corrected <= settling[0] * size)
            _extrapolate(where, how, i, momenta, has_ended)


@compiled
def _moves(where, i):
    """Squares of the last correction, change, and code; how much momentum points uphill (< 0)."""
    point, new, codes = where.point[i], where.new[i], where.codes[i]
    zero = point.dtype.type(0)
    corrected, changed, size, slope = zero, zero, zero, zero
    for j in range(len(point)):
        correction, change = new[j] - point[j], new[j] - codes[j]
        corrected += correction * correction
        changed += change * change
        size += new[j] * new[j]
        slope += correction * change
    return corrected, changed, size, slope


@compiled
def _rest(how, i, is_uphill, is_in_the_way):
    how.rests[i, 0] = is_uphill or is_in_the_way
    how.has_restarted[i, 0] |= is_uphill


@compiled
def _extrapolate(where, how, i, momenta, has_ended):
    """Momentum by age, which is halved where a sample rests from it."""
    point, new, codes = where.point[i], where.new[i], where.codes[i]
    age, rests = how.age[i, 0], how.rests[i, 0]
    momentum = point.dtype.type(0) if rests or has_ended else momenta[age]
    how.age[i, 0] = (age >> 1 if rests else age) + 1
    for j in range(len(point)):
        point[j] = new[j] + momentum * (new[j] - codes[j])
