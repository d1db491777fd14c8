"""What `sparse_lightning.solvers.constant` does between two gradients, compiled into one pass.

torch takes some fifteen operations for it, each of which takes longer to call than what it does to
a batch of codes. The result is that of torch's operations, and is tested to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import prange
from torch import Tensor

from sparse_lightning.compiling import ROWS, compiled, in_parallel, run_in_threads

if TYPE_CHECKING:
    from sparse_lightning.solvers.constant import CompiledDescent


class Step(NamedTuple):
    r"""In the codes' own type.

    Attributes:
        size: :math:`\eta`.
        shrinkage: :math:`\eta \lambda`.
        tolerance: squared; 0 holds no sample.
        momentum: by which the new codes are extrapolated.
    """

    size: np.floating
    shrinkage: np.floating
    tolerance: np.floating
    momentum: np.floating


def step(descent: CompiledDescent, gradient: Tensor, iteration: int) -> Tensor:
    """One proximal step of each sample; what was the gradient at the point becomes its new code."""
    rule = Step(*descent.numbers, descent.momenta[iteration - 1])
    # Of one layout, or loops would be compiled for another one.
    new = gradient.contiguous()
    codes = descent.codes.numpy(), descent.point.numpy(), new.numpy()
    state = descent.held.numpy(), descent.ended.numpy(), iteration
    run_in_threads(_step, new.numel(), *codes, *state, rule)
    return new


@in_parallel
def _step(codes, points, new, held, ended, iteration, rule):
    """Points become the extrapolated ones; samples that converge are held from then on."""
    count = len(codes)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            if held[i]:
                _stay(codes[i], points[i], new[i])
            else:
                changed, size = _step_of_one(codes[i], points[i], new[i], rule)
                # No change at all is convergence too: a zero code has a relative change of 0/0.
                has_ended = changed < rule.tolerance * size or changed == 0
                if rule.tolerance > 0 and has_ended:
                    held[i], ended[i] = True, iteration
                    _stay(new[i], points[i], new[i])


@compiled
def _stay(code, point, new):
    for j in range(len(code)):
        point[j] = new[j] = code[j]


@compiled
def _step_of_one(code, point, new, rule):
    """Returns the squares of the change and of the code it is compared with."""
    zero = code.dtype.type(0)
    changed, size = zero, zero
    for j in range(len(code)):
        lower = point[j] - rule.size * new[j] - rule.shrinkage
        # Not a number stays what it is.
        lower = zero if lower < zero else lower
        change = lower - code[j]
        changed += change * change
        size += code[j] * code[j]
        new[j] = lower
        point[j] = lower + rule.momentum * change
    return changed, size
