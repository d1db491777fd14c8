"""How much is kept of each sample."""

from __future__ import annotations

# Units that are kept of each sample; one bit each.
ROOM = 64


def bytes_of(n: int, m: int, length: int, size: int) -> int:
    """All arrays of `sparse_lightning.pieces.arrays`.

    Args:
        n: samples.
        m: hidden units.
        length: of a code.
        size: bytes of a number.
    """
    atoms = length + 1
    numbers = n * (atoms * (atoms + ROOM) + ROOM**2 + 2 * length + m + 2)
    numbers += m * (m + 3 * atoms + 1) + atoms**2
    integers = n * (m + ROOM + 5)
    return size * numbers + 8 * integers + n * (3 * m + atoms) + m
