"""What a step teaches the quadratics of `sparse_lightning.solvers.quasi_newton`, compiled.

A batch of codes is small work, for which torch takes a dozen operations, each of them long to call.
Here a sample is looked at twice. Finite numbers give what torch's operations give; a step on which
the gradient turned by infinity teaches nothing.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from sparse_lightning.compiling import ROWS, compiled, in_parallel, run_in_threads


def with_pair(
    pairs: Tensor,
    steps: Tensor,
    turned: Tensor,
    expected: Tensor,
    scale: Tensor,
    may_learn: Tensor,
    least_turn: float,
) -> tuple[Tensor, Tensor]:
    r"""Pairs with one more, and the square of what it adds, :math:`\|a\|^2`, (n,).

    Args:
        pairs: (n, 2k, l).
        steps, turned, expected: s, y and B s, (n, l) each.
        scale: (n, 1).
        may_learn: (n,); the vectors of other samples are 0.
        least_turn: part of :math:`s^\top B s` that :math:`y^\top s` must be above.
    """
    count, known, length = pairs.shape
    longer, added = pairs.new_empty(count, known + 2, length), pairs.new_empty(count)
    parts = pairs, steps, turned, expected, scale.squeeze(1), may_learn
    arrays = [part.contiguous().numpy() for part in parts]
    least = arrays[0].dtype.type(least_turn)
    run_in_threads(_with_pair, steps.numel(), *arrays, least, longer.numpy(), added.numpy())
    return longer, added


@in_parallel
def _with_pair(pairs, steps, turned, expected, scale, may_learn, least_turn, longer, added):
    count = len(steps)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for i in range(chunk * ROWS, min(count, (chunk + 1) * ROWS)):
            for k in range(pairs.shape[1]):
                for j in range(pairs.shape[2]):
                    longer[i, k, j] = pairs[i, k, j]
            given = steps[i], turned[i], expected[i], scale[i], may_learn[i], least_turn
            added[i] = _pair_of_one(*given, longer[i, -2], longer[i, -1])


@compiled
def _pair_of_one(step, turned, expected, scale, may_learn, least_turn, a, b):
    """Write both vectors, and return the square of the first."""
    zero, one = step.dtype.type(0), step.dtype.type(1)
    turn, expectation = zero, zero
    for j in range(len(step)):
        turn += turned[j] * step[j]
        expectation += expected[j] * step[j]
    p, q, size = zero, zero, zero
    if may_learn and expectation > 0 and turn > least_turn * expectation:
        p, q = one / np.sqrt(scale * turn), one / np.sqrt(scale * expectation)
    for j in range(len(step)):
        # Not a number times 0 would not be 0.
        a[j] = p * turned[j] if p > 0 else zero
        b[j] = q * expected[j] if p > 0 else zero
        size += a[j] * a[j]
    return size
