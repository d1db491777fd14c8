"""What small products of `sparse_lightning.pieces.rows` are made of, compiled."""

from __future__ import annotations

import numpy as np
from numba import prange

from sparse_lightning.compiling import compiled, in_parallel


@in_parallel
def put_together(
    samples,
    wanted,
    active,
    usual,
    units,
    usual_response,
    gram,
    signed,
    response,
    between,
    left,
    right,
):
    """Write :math:`S W_E` and :math:`P_E` of samples, A between the units E, and columns of both.

    Args:
        samples: (b,).
        wanted: (b, l + 1), the columns.
        active, usual: M of all samples, (n, m), and of the usual piece, (m,).
        units, usual_response: W and P, (m, l + 1).
        gram: A, (m, m).
        signed, response: of up to k units, (b, k, l + 1), to be written to, like the rest.
        between: (b, k, k).
        left, right: up to r columns of ``signed`` and ``response``, (b, r, k).
    """
    for b in prange(len(samples)):
        _put_together(
            wanted[b],
            active[samples[b]],
            usual,
            units,
            usual_response,
            gram,
            signed[b],
            response[b],
            between[b],
            left[b],
            right[b],
        )


@compiled
def _put_together(
    wanted, active, usual, units, usual_response, gram, signed, response, between, left, right
):
    count, room = 0, len(between)
    other = np.empty(room + 1, np.int64)
    for j in range(len(usual)):
        other[count] = j
        count += active[j] != usual[j]
    for a in range(count):
        j = other[a]
        sign = units.dtype.type(1 if active[j] else -1)
        for t in range(units.shape[1]):
            signed[a, t], response[a, t] = sign * units[j, t], usual_response[j, t]
        for b in range(count):
            between[a, b] = gram[j, other[b]]
        between[a, count:] = 0
    signed[count:], response[count:], between[count:] = 0, 0, 0
    row = 0
    for k in range(len(wanted)):
        if wanted[k]:
            for a in range(room):
                left[row, a], right[row, a] = signed[a, k], response[a, k]
            row += 1
    left[row:], right[row:] = 0, 0


@in_parallel
def write_rows(samples, wanted, found, usual_hessian, hessian):
    """Write rows ``found`` (b, r, l + 1), beside those of the usual piece, to where they belong."""
    for b in prange(len(samples)):
        _write_rows(wanted[b], found[b], usual_hessian, hessian[samples[b]])


@compiled
def _write_rows(wanted, found, usual_hessian, hessian):
    row = 0
    for k in range(len(wanted)):
        if wanted[k]:
            for t in range(hessian.shape[1]):
                hessian[k, t] = usual_hessian[k, t] + found[row, t]
            row += 1
