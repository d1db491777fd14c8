r"""Gradients of samples that move from piece to piece, compiled; see `sparse_lightning.pieces`.

Which units switch when a code moves is asked at every gradient. The input of unit j changes by no
more than :math:`\|w_j\|` times the way that the code moves, so that a list of the units that are
nearer to their kink than that holds for a while, and near the end of an inference it is short.

All is in one file, since numba looks no further than that for whether compiled code is out of date.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from sparse_lightning.compiling import ROWS, compiled, in_parallel, inlined
from sparse_lightning.pieces.arrays import Pieces

# Iterations at the present pace for which a list is made.
LOOKS_AHEAD = 8
# The largest share of all units that is worth a list.
SHORT = 1 / 16
# A list of more than so many units is made anew where it would now reach so many times less far.
FEW, SHORTER = 8, 4
# Of a code, relative; a list always holds for so much.
ROUNDING = 1e-6
# Units that are looked at together.
BLOCK = 64
# Switched units of a sample above which its piece is the one that it has come to.
MOST_SWITCHED = 32


@in_parallel
def advance(codes, place, network, piece, kept, nearby, pull, gradients):
    """Write the gradient of each sample at its code.

    ``place`` is where in the arrays each of the codes (n, l) is; ``pull`` the curvature of a
    quadratic in the codes that is part of the function.
    """
    for chunk in prange((len(codes) + ROWS - 1) // ROWS):
        rows = range(chunk * ROWS, min(len(codes), (chunk + 1) * ROWS))
        _advance(rows, codes, place, network, piece, kept, nearby, pull, gradients)


@compiled
def _advance(rows, codes, place, network, piece, kept, nearby, pull, gradients):
    # Functions that run in threads take no tuples of tuples.
    pieces, length, m = Pieces(network, piece, kept, nearby), codes.shape[1], len(network.units)
    atoms, values = np.empty(length + 1, np.int64), np.empty(length + 1, codes.dtype)
    switched, inputs = np.empty(m + 1, np.int64), np.empty(m + 1, codes.dtype)
    for r in rows:
        i, num_atoms = place[r], _active_atoms(codes[r], values, atoms)
        code = codes[r], values[:num_atoms], atoms[:num_atoms]
        _gradient_of_one(code, i, pieces, pull, switched, inputs, gradients[r])


@inlined
def _gradient_of_one(code, i, pieces, pull, switched, inputs, out):
    found, far = _find(code, i, pieces, switched, inputs)
    if far < np.inf or not _is_known(code[2], i, pieces, switched, found):
        found = _learn(code, i, pieces, switched, inputs, found, far)
    _gradient(code, i, pieces.piece, pull, out)
    _add_switched(code, i, pieces, switched[:found], inputs, out)


@inlined
def _active_atoms(code, values, atoms):
    count = 0
    for k in range(len(code)):
        atoms[count], values[count] = k, code[k]
        count += code[k] != 0
    # The biases.
    atoms[count], values[count] = len(code), 1
    return count + 1


@inlined
def _is_known(atoms, i, pieces, switched, found):
    """Whether all is that the gradient needs."""
    is_known = found <= MOST_SWITCHED
    for a in range(found):
        is_known &= pieces.kept.slot[i, switched[a]] >= 0
    for k in atoms:
        is_known &= pieces.piece.is_known[i, k]
    return is_known


@inlined
def _find(code, i, pieces, switched, inputs):
    """List the units of sample i that are not as they are on its piece, and their inputs.

    Returns their number, and how far from its kink, by the size of its weights, a unit will not
    switch back for a while; infinity where that has not been looked at.
    """
    components, values, atoms = code
    nearby = pieces.nearby
    nearby.since[i] += 1
    moved, reach = _distance(components, nearby.centre[i]), nearby.reach[i]
    # A list at the present pace would be that much shorter.
    is_long = SHORTER * LOOKS_AHEAD * moved < reach * nearby.since[i]
    is_long &= nearby.since[i] > LOOKS_AHEAD and nearby.count[i] > FEW
    if moved <= reach and not is_long:
        return _find_listed(values, atoms, i, pieces, switched, inputs), np.inf
    all_inputs = np.zeros(len(pieces.network.units), components.dtype)
    _add_rows(values, atoms, pieces.network.atoms, all_inputs)
    far = _list(components, all_inputs, moved, i, pieces)
    return _find_all(all_inputs, pieces.piece.active[i], switched, inputs), far


@compiled
def _find_all(all_inputs, active, switched, inputs):
    found = 0
    for first in range(0, len(all_inputs), BLOCK):
        block = range(first, min(first + BLOCK, len(all_inputs)))
        count = 0
        for j in block:
            count += (all_inputs[j] > 0) != active[j]
        if count > 0:
            for j in block:
                switched[found], inputs[found] = j, all_inputs[j]
                found += (all_inputs[j] > 0) != active[j]
    return found


@inlined
def _find_listed(values, atoms, i, pieces, switched, inputs):
    found = 0
    for a in range(pieces.nearby.count[i]):
        j = pieces.nearby.unit[i, a]
        total = values.dtype.type(0)
        for k in range(len(atoms)):
            total += values[k] * pieces.network.units[j, atoms[k]]
        switched[found], inputs[found] = j, total
        found += (total > 0) != pieces.piece.active[i, j]
    return found


@compiled
def _list(code, inputs, moved, i, pieces):
    """List the units that are near to their kinks, if there are few; returns what is near."""
    nearby, size, active = pieces.nearby, pieces.network.size, pieces.piece.active[i]
    reach = LOOKS_AHEAD * moved / max(nearby.since[i], 1)
    reach = max(reach, ROUNDING * _distance(code, np.zeros_like(code)))
    _copy(code, nearby.centre[i])
    nearby.since[i], nearby.reach[i] = 0, -1
    # The same code, asked for again, says nothing about the pace.
    if moved == 0:
        return np.inf
    if not reach < nearby.reach_to_try[i]:
        return reach
    count = 0
    for j in range(len(inputs)):
        nearby.unit[i, count] = j
        # Those that are not as they are on the piece have to be seen whenever it is asked for.
        count += abs(inputs[j]) <= reach * size[j] or (inputs[j] > 0) != active[j]
    nearby.count[i] = count
    if count <= len(inputs) * SHORT:
        nearby.reach[i], nearby.reach_to_try[i] = reach, np.inf
    else:
        nearby.reach_to_try[i] = 0.7 * reach
    return reach


@inlined
def _copy(source, target):
    # An assignment would compile all that it takes to complain about shapes.
    for k in range(len(source)):
        target[k] = source[k]


@inlined
def _distance(left, right):
    total = left.dtype.type(0)
    for k in range(len(left)):
        total += (left[k] - right[k]) ** 2
    return np.sqrt(total)


@compiled
def _add_rows(values, which, rows, out):
    """Add ``values`` times the rows ``which`` to ``out``, which may be shorter than they are."""
    k = 0
    while k + 4 <= len(which):
        first, second, third, fourth = which[k], which[k + 1], which[k + 2], which[k + 3]
        p, q, r, s = values[k], values[k + 1], values[k + 2], values[k + 3]
        for j in range(len(out)):
            out[j] += (
                p * rows[first, j] + q * rows[second, j] + r * rows[third, j] + s * rows[fourth, j]
            )
        k += 4
    while k < len(which):
        first = which[k]
        p = values[k]
        for j in range(len(out)):
            out[j] += p * rows[first, j]
        k += 1


@inlined
def _gradient(code, i, piece, pull, out):
    """On the sample's piece."""
    components, values, atoms = code
    for k in range(len(out)):
        out[k] = piece.constant[i, k] + pull * components[k]
    _add_rows(values, atoms, piece.hessian[i], out)


@inlined
def _add_switched(code, i, pieces, switched, inputs, out):
    """What the units that are not as they are on the piece add to the gradient."""
    _, values, atoms = code
    network, piece, kept, _ = pieces
    # Of their activations.
    changes = inputs
    for a in range(len(switched)):
        changes[a] *= _sign(switched[a], piece.active[i], out)
    for a in range(len(switched)):
        j = switched[a]
        slot = kept.slot[i, j]
        unit, response = network.units[j], kept.response[i, slot]
        slope = -piece.drive[i, j]
        for k in range(len(atoms)):
            slope += values[k] * response[atoms[k]]
        for b in range(len(switched)):
            slope += changes[b] * kept.gram[i, slot, kept.slot[i, switched[b]]]
        slope *= _sign(j, piece.active[i], out)
        for k in range(len(out)):
            out[k] += slope * unit[k] + changes[a] * response[k]


@inlined
def _sign(j, active, like):
    """By which unit j counts when it is not as it is on the piece, of the type of an array."""
    return like.dtype.type(-1 if active[j] else 1)


@compiled
def _learn(code, i, pieces, switched, inputs, found, far):
    """What the gradient needs to know; returns how many switched units are still to be added.

    Those that will not switch back for a while become part of the piece.
    """
    _, _, atoms = code
    piece, kept = pieces.piece, pieces.kept
    if found > MOST_SWITCHED:
        _come_over(i, pieces, switched[:found])
        found = 0
    new_units, new_atoms = 0, 0
    for j in switched[:found]:
        new_units += kept.slot[i, j] < 0
    for k in atoms:
        new_atoms += not piece.is_known[i, k]
    if new_units > 0:
        _learn_responses(i, pieces, switched[:found], new_units)
    if far < np.inf:
        left = 0
        for a in range(found):
            j = switched[a]
            if abs(inputs[a]) > far * pieces.network.size[j]:
                _switch(i, j, pieces)
            else:
                switched[left], inputs[left] = j, inputs[a]
                left += 1
        found = left
    if new_atoms > 0:
        _learn_rows(i, pieces, atoms)
    return found


@compiled
def _come_over(i, pieces, switched):
    """Let the piece be the one where these units are switched; forget what was known of it."""
    network, piece, kept, _ = pieces
    for j in switched:
        _flip(i, j, network, piece)
    piece.is_known[i] = False
    _forget(i, kept)


@compiled
def _forget(i, kept):
    for j in kept.unit[i, : kept.count[i]]:
        kept.slot[i, j] = -1
    kept.count[i] = 0


@compiled
def _flip(i, j, network, piece):
    unit = network.units[j]
    drive = _sign(j, piece.active[i], unit) * piece.drive[i, j]
    for k in range(len(unit) - 1):
        piece.constant[i, k] -= drive * unit[k]
    piece.active[i, j] = not piece.active[i, j]


@compiled
def _switch(i, j, pieces):
    """Let unit j, which is kept, be switched on the sample's piece."""
    network, piece, kept, _ = pieces
    at = kept.slot[i, j]
    unit, response, gram = network.units[j], kept.response[i, at], kept.gram[i, at]
    sign, known = _sign(j, piece.active[i], unit), 0
    for k in range(len(unit)):
        if piece.is_known[i, k]:
            p = sign * unit[k]
            q = sign * response[k] + gram[at] * unit[k]
            row = piece.hessian[i, k]
            for t in range(len(unit)):
                row[t] += p * response[t] + q * unit[t]
            known += 1
    for slot in range(kept.count[i]):
        p = sign * gram[slot]
        other = kept.response[i, slot]
        for k in range(len(unit)):
            other[k] += p * unit[k]
    _flip(i, j, network, piece)
    kept.work[i] += (2 * known + kept.count[i] + 1) * len(unit)


@compiled
def _others(i, network, piece):
    """The units that are not as they are in most samples, and by which sign they count."""
    m = len(network.usual)
    others, signs = np.empty(m + 1, np.int64), np.empty(m + 1, piece.hessian.dtype)
    count = 0
    for first in range(0, m, BLOCK):
        for j in range(first, min(first + BLOCK, m)):
            others[count] = j
            signs[count] = -_sign(j, piece.active[i], signs)
            count += piece.active[i, j] != network.usual[j]
    return others[:count], signs[:count]


@compiled
def _learn_responses(i, pieces, switched, new):
    """Of those units that have no slot; a sample without any room forgets all others."""
    network, piece, kept, _ = pieces
    if kept.count[i] + new > kept.unit.shape[1]:
        _forget(i, kept)
    others, signs = _others(i, network, piece)
    parts = np.empty_like(signs)
    for j in switched:
        if kept.slot[i, j] < 0:
            slot = kept.count[i]
            kept.unit[i, slot], kept.slot[i, j] = j, slot
            kept.count[i] += 1
            for a in range(len(others)):
                parts[a] = signs[a] * network.gram[j, others[a]]
            for other in range(slot + 1):
                own = network.gram[j, kept.unit[i, other]]
                kept.gram[i, slot, other], kept.gram[i, other, slot] = own, own
            _copy(network.response[j], kept.response[i, slot])
            _add_rows(parts, others, network.units, kept.response[i, slot])
            kept.work[i] += len(others) * network.units.shape[1]


@compiled
def _learn_rows(i, pieces, atoms):
    """Of Q, for those atoms whose rows are not known: the usual piece's, and what others add."""
    network, piece, kept, _ = pieces
    others, signs = _others(i, network, piece)
    count, between = len(others), _between(others, network.gram)
    which, own, rest = np.arange(count), np.empty_like(signs), np.empty_like(signs)
    for k in atoms:
        if not piece.is_known[i, k]:
            row, piece.is_known[i, k] = piece.hessian[i, k], True
            for a in range(count):
                own[a] = signs[a] * network.units[others[a], k]
                rest[a] = network.response[others[a], k]
            _add_rows(own, which, between, rest)
            for a in range(count):
                rest[a] *= signs[a]
            _copy(network.hessian[k], row)
            _add_rows(own, others, network.response, row)
            _add_rows(rest, others, network.units, row)
            kept.work[i] += count * (count + 2 * len(row))


@compiled
def _between(others, gram):
    """A between some units."""
    out = np.empty((len(others), len(others)), gram.dtype)
    for a in range(len(others)):
        for b in range(len(others)):
            out[a, b] = gram[others[a], others[b]]
    return out
