"""Sums over the few units in which samples differ from the usual piece, compiled.

See `sparse_lightning.pieces.usual`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from sparse_lightning.compiling import compiled, in_parallel

# Rows of A that stay in the cache while samples pass by.
BLOCK = 32


@in_parallel
def add_up(
    parts,
    codes,
    inputs,
    usual,
    units,
    response,
    hessian,
    gram,
    drive,
    constant,
    pull,
    others,
    changes,
    slopes,
    count,
    gradients,
):
    """Write the gradients of n samples at their codes.

    Args:
        parts: in how many parts samples are taken.
        codes: (n, l).
        inputs: of the hidden units, (n, m).
        usual: (m,), whether a unit is active on the usual piece.
        units, response: W and P, (m, l + 1).
        hessian: Q of the usual piece, (l + 1, l + 1).
        gram: A, (m, m).
        drive: c, (n, m).
        constant: what the gradient is without any other summand, (n, l).
        pull: curvature of a quadratic in the codes that is part of the function.
        others, changes, slopes: (n, m), room for the units in which a sample differs, for what
            that makes of their activations, and for the slopes along them.
        count: (n,), to be set to how many these are.
        gradients: (n, l), to be written to.
    """
    each = (len(codes) + parts - 1) // parts
    for part in prange(parts):
        first, last = part * each, min(len(codes), (part + 1) * each)
        for i in range(first, last):
            count[i] = _list_others(inputs[i], usual, others[i], changes[i])
        if first < last:
            few = others[first:last], changes[first:last], slopes[first:last], count[first:last]
            _add_between(*few, gram)
        for i in range(first, last):
            _add_slopes(codes[i], others[i], count[i], usual, response, drive[i], slopes[i])
            out = gradients[i]
            _add_usual(codes[i], constant[i], pull, hessian, out)
            _add_others(others[i], changes[i], slopes[i], count[i], units, response, out)


@compiled
def _list_others(inputs, usual, others, changes):
    # Signed numbers might count from the end, which takes time to rule out.
    count = np.uint64(0)
    for j in range(len(inputs)):
        others[count], changes[count] = j, abs(inputs[j])
        count += np.uint64((inputs[j] > 0) != usual[j])
    return np.int64(count)


@compiled
def _add_between(others, changes, slopes, count, gram):
    """Write A between the units times their changes to the slopes, for all samples block by block.

    Each row of A is then read once, and not once for each sample.
    """
    done = np.zeros(len(count), np.int64)
    for first in range(0, len(gram), BLOCK):
        for i in range(len(count)):
            a, unit, change = done[i], others[i], changes[i]
            while a < count[i] and unit[a] < first + BLOCK:
                row, total = gram[unit[a]], gram.dtype.type(0)
                for b in range(count[i]):
                    total += row[unit[b]] * change[b]
                slopes[i, a] = total
                a += 1
            done[i] = a


@compiled
def _add_slopes(code, others, count, usual, response, drive, slopes):
    """Add the rest of them, and give them the sign by which a unit counts."""
    atoms, values = np.empty(len(code), np.uint32), np.empty_like(code)
    active = np.uint64(0)
    for k in range(len(code)):
        atoms[active], values[active] = k, code[k]
        active += np.uint64(code[k] != 0)
    for a in range(count):
        j = others[a]
        row = response[j]
        total = slopes[a] - drive[j] + row[len(code)]
        for k in range(active):
            total += values[k] * row[atoms[k]]
        slopes[a] = -total if usual[j] else total


@compiled
def _add_usual(code, constant, pull, hessian, out):
    of_biases = hessian[len(code)]
    for k in range(len(out)):
        out[k] = constant[k] + pull * code[k] + of_biases[k]
    for atom in range(len(code)):
        value = code[atom]
        if value != 0:
            row = hessian[atom]
            for k in range(len(out)):
                out[k] += value * row[k]


@compiled
def _add_others(others, changes, slopes, count, units, response, out):
    a = 0
    while a + 2 <= count:
        first, second = units[others[a]], units[others[a + 1]]
        first_response, second_response = response[others[a]], response[others[a + 1]]
        for k in range(len(out)):
            out[k] += (
                slopes[a] * first[k]
                + changes[a] * first_response[k]
                + slopes[a + 1] * second[k]
                + changes[a + 1] * second_response[k]
            )
        a += 2
    if a < count:
        last, last_response = units[others[a]], response[others[a]]
        for k in range(len(out)):
            out[k] += slopes[a] * last[k] + changes[a] * last_response[k]
