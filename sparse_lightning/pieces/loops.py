r"""Moving samples from piece to piece, compiled; see `sparse_lightning.pieces`.

Which units switch when a code moves is asked at every gradient. The input of unit j changes by no
more than :math:`\|w_j\|` times the way that the code moves, so that a list of the units that are
nearer to their kink than that holds for a while, and near the end of an inference it is short.

All is in one file, since numba looks no further than that for whether compiled code is out of date.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from sparse_lightning.compiling import ROWS, compiled, in_parallel
from sparse_lightning.pieces.arrays import Pieces

# Iterations at the present pace for which a list is made.
LOOKS_AHEAD = 4
# The largest share of all units that is worth a list.
SHORT = 1 / 16
# A list of more than so many units that has held for longer than this is made anew.
FEW, LONG = 8, 10
# Of a code, relative; a list always holds for so much.
ROUNDING = 1e-6
# Units that are looked at together.
BLOCK = 64
ONE = np.uint64(1)


@in_parallel
def advance(codes, place, network, piece, kept, nearby, wanted, pull, gradients):
    """Move each sample that waits to its code, and write its gradient if all is known for it.

    ``place`` is where in the arrays each of the codes (n, l) is; ``pull`` the curvature of a
    quadratic in the codes that is part of the function.
    """
    for chunk in prange((len(codes) + ROWS - 1) // ROWS):
        rows = range(chunk * ROWS, min(len(codes), (chunk + 1) * ROWS))
        _advance(rows, codes, place, network, piece, kept, nearby, wanted, pull, gradients)


@compiled
def _advance(rows, codes, place, network, piece, kept, nearby, wanted, pull, gradients):
    # Functions that run in threads take no tuples of tuples.
    pieces, length = Pieces(network, piece, kept, nearby), codes.shape[1]
    atoms, values = np.empty(length + 1, np.int64), np.empty(length + 1, codes.dtype)
    for r in rows:
        if wanted.waits[r]:
            num_atoms, i = _active_atoms(codes[r], values, atoms), place[r]
            code = codes[r], values[:num_atoms], atoms[:num_atoms]
            if _move(code, i, r, pieces, wanted):
                _gradient(code, piece, i, pull, gradients[r])
                wanted.waits[r] = False


@compiled
def _active_atoms(code, values, atoms):
    count = 0
    for k in range(len(code)):
        atoms[count], values[count] = k, code[k]
        count += code[k] != 0
    # The biases.
    atoms[count], values[count] = len(code), 1
    return count + 1


@compiled
def _move(code, i, r, pieces, wanted):
    """Switch what has to be; whether all of it could be, and the rows of the atoms are known."""
    is_complete, (components, values, atoms) = True, code
    for k in atoms:
        if not pieces.piece.is_known[i, k]:
            wanted.row[r, k], is_complete = True, False
    found, left = _find(components, values, atoms, i, pieces, wanted.switching[r]), 0
    for j in wanted.switching[r, :found]:
        if pieces.kept.slot[i, j] >= 0:
            _switch(i, j, pieces)
        else:
            wanted.switching[r, left] = j
            left += 1
    wanted.count[r] = left
    if is_complete and left == 0:
        pieces.nearby.since[i] += 1
        return True
    return False


@compiled
def _find(code, values, atoms, i, pieces, switching):
    """List the units that have to switch in sample i, and return their number.

    ``values`` are the components of (code, 1) that are not 0, ``atoms`` their indices.
    """
    nearby = pieces.nearby
    moved, reach = _distance(code, nearby.centre[i]), nearby.reach[i]
    is_long = nearby.since[i] > LONG and nearby.count[i] > FEW and moved < reach / 4
    if moved <= reach and not is_long:
        return _find_listed(values, atoms, i, pieces, switching)
    inputs = np.zeros(len(pieces.network.units), code.dtype)
    _add_rows(values, atoms, pieces.network.atoms, inputs)
    _list(code, inputs, moved, i, pieces)
    return _find_all(inputs, pieces.piece.active[i], switching)


@compiled
def _find_all(inputs, active, switching):
    found = 0
    for first in range(0, len(inputs), BLOCK):
        block = range(first, min(first + BLOCK, len(inputs)))
        count = 0
        for j in block:
            count += (inputs[j] > 0) != active[j]
        if count > 0:
            for j in block:
                switching[found] = j
                found += (inputs[j] > 0) != active[j]
    return found


@compiled
def _find_listed(values, atoms, i, pieces, switching):
    found = 0
    for j in pieces.nearby.unit[i, : pieces.nearby.count[i]]:
        unit = pieces.network.units[j]
        total = values.dtype.type(0)
        for k in range(len(atoms)):
            total += values[k] * unit[atoms[k]]
        switching[found] = j
        found += (total > 0) != pieces.piece.active[i, j]
    return found


@compiled
def _list(code, inputs, moved, i, pieces):
    """List the units that are near to their kinks, if there are few."""
    nearby, size, active = pieces.nearby, pieces.network.size, pieces.piece.active[i]
    reach = LOOKS_AHEAD * moved / max(nearby.since[i], 1)
    reach = max(reach, ROUNDING * _distance(code, np.zeros_like(code)))
    nearby.centre[i], nearby.since[i], nearby.reach[i] = code, 0, -1
    # The same code, asked for again, says nothing about the pace.
    if moved == 0 or not reach < nearby.reach_to_try[i]:
        return
    count = 0
    for j in range(len(inputs)):
        nearby.unit[i, count] = j
        # Those that have to switch now may have to wait for it until they are kept.
        count += abs(inputs[j]) <= reach * size[j] or (inputs[j] > 0) != active[j]
    nearby.count[i] = count
    if count <= len(inputs) * SHORT:
        nearby.reach[i], nearby.reach_to_try[i] = reach, np.inf
    else:
        nearby.reach_to_try[i] = 0.7 * reach


@compiled
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


@compiled
def _gradient(code, piece, i, pull, out):
    components, values, atoms = code
    for k in range(len(out)):
        out[k] = piece.constant[i, k] + pull * components[k]
    _add_rows(values, atoms, piece.hessian[i], out)


@compiled
def _switch(i, j, pieces):
    """Switch unit j of sample i, which is kept."""
    network, piece, kept, _ = pieces
    slot = kept.slot[i, j]
    _update(i, j, slot, pieces)
    unit, response, own = network.units[j], kept.response[i, slot], network.gram[j, j]
    piece.active[i, j] = not piece.active[i, j]
    sign = unit.dtype.type(1 if piece.active[i, j] else -1)
    for k in range(len(unit)):
        if piece.is_known[i, k]:
            p = sign * unit[k]
            q = sign * response[k] + p * own
            row = piece.hessian[i, k]
            for t in range(len(unit)):
                row[t] += p * response[t] + q * unit[t]
    drive = sign * piece.drive[i, j]
    for k in range(len(unit) - 1):
        piece.constant[i, k] -= drive * unit[k]
    kept.num_switches[i] += 1
    kept.has_switched[i] ^= ONE << np.uint64(slot)


@compiled
def _update(i, j, slot, pieces):
    """Bring the response of a unit up to date with the other units that are kept."""
    network, piece, kept, _ = pieces
    news = kept.has_switched[i] ^ kept.told[i, slot]
    kept.told[i, slot] = kept.has_switched[i]
    if news == 0:
        return
    response = kept.response[i, slot]
    for other in range(kept.count[i]):
        if other != slot and (news >> np.uint64(other)) & ONE:
            t = kept.unit[i, other]
            sign = response.dtype.type(1 if piece.active[i, t] else -1)
            unit, p = network.units[t], sign * network.gram[j, t]
            for k in range(len(response)):
                response[k] += p * unit[k]


@compiled
def make_room(place, pieces, wanted, found):
    """Give slots to units that switch, as many as there is room for, and list them.

    Writes sample, slot and unit to the rows of ``found`` and returns how many there are. A sample
    without any room forgets the units that it has kept.
    """
    count, kept = 0, pieces.kept
    room = kept.unit.shape[1]
    for r in range(len(place)):
        i = place[r]
        if wanted.count[r] > 0 and kept.count[i] == room:
            for j in kept.unit[i]:
                kept.slot[i, j] = -1
            kept.count[i], kept.has_switched[i] = 0, 0
        for j in wanted.switching[r, : wanted.count[r]]:
            slot = kept.count[i]
            if slot == room or count == len(found):
                break
            kept.unit[i, slot], kept.slot[i, j] = j, slot
            kept.told[i, slot] = kept.has_switched[i]
            kept.count[i] += 1
            found[count, 0], found[count, 1], found[count, 2] = i, slot, j
            count += 1
    return count


@in_parallel
def active_rows(found, gram, active, out):
    """For sample i and unit j of ``found``, row j of A at the active units without j itself."""
    for row in prange(len(out)):
        i, j = found[row, 0], found[row, 2]
        for t in range(out.shape[1]):
            out[row, t] = gram[j, t] if active[i, t] else 0
        out[row, j] = 0
