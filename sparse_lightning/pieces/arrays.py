"""What is known of each sample of a batch, as arrays that compiled loops read and write.

n samples, l atoms, m hidden units, room to keep k units; symbols as in `sparse_lightning.pieces`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparse_lightning.pieces.sizes import ROOM


class Network(NamedTuple):
    """The decoder, and the piece on which every unit is as it is in most samples.

    Attributes:
        units: W, (m, l + 1), a row for each hidden unit.
        atoms: its transpose, contiguous.
        gram: A, (m, m).
        size: (m,), norms of the rows of :math:`W_1`.
        usual: (m,), M of that piece.
        response: its A M W, (m, l + 1).
        hessian: its Q, (l + 1, l + 1).
    """

    units: np.ndarray
    atoms: np.ndarray
    gram: np.ndarray
    size: np.ndarray
    usual: np.ndarray
    response: np.ndarray
    hessian: np.ndarray


class Piece(NamedTuple):
    """The linear function that each sample is on, or near.

    Attributes:
        drive: c, (n, m).
        active: (n, m), M.
        hessian: Q, (n, l + 1, l + 1), of which only rows that are known are written.
        is_known: (n, l + 1), which those are.
        constant: the rest of the gradient, (n, l).
    """

    drive: np.ndarray
    active: np.ndarray
    hessian: np.ndarray
    is_known: np.ndarray
    constant: np.ndarray

    @classmethod
    def at(cls, drive: np.ndarray, active: np.ndarray, constant: np.ndarray) -> Piece:
        """Without any row of Q."""
        n, length = len(constant), constant.shape[1] + 1
        hessian = np.empty((n, length, length), constant.dtype)
        return cls(drive, active, hessian, np.zeros((n, length), bool), constant)


class Kept(NamedTuple):
    r"""Units that have switched.

    Attributes:
        unit: (n, k), of which the first ``count`` are units.
        count: (n,).
        slot: (n, m), where in ``unit`` a unit is, -1 if it is not.
        response: :math:`e_j^\top A M W`, (n, k, l + 1).
        gram: A between them, (n, k, k); A itself is too large to be looked up in so often.
        work: (n,), multiplications that learning and switching have taken.
    """

    unit: np.ndarray
    count: np.ndarray
    slot: np.ndarray
    response: np.ndarray
    gram: np.ndarray
    work: np.ndarray

    @classmethod
    def none(cls, n: int, m: int, length: int, dtype: np.dtype) -> Kept:
        return cls(
            np.zeros((n, ROOM), np.int64),
            np.zeros(n, np.int64),
            np.full((n, m), -1, np.int16),
            np.empty((n, ROOM, length), dtype),
            np.empty((n, ROOM, ROOM), dtype),
            np.zeros(n, np.int64),
        )


class Nearby(NamedTuple):
    """Units that can switch while a code moves a little.

    Attributes:
        centre: (n, l), the code at which the inputs of all units were last taken.
        reach: (n,), how far from there no units but those listed can switch; -1 without a list.
        unit: (n, m + 1), of which the first ``count`` are listed; among them are those that were
            not as they are on the piece when the list was made.
        count: (n,).
        since: (n,), gradients since then.
        reach_to_try: (n,), below which a list may be short enough.
    """

    centre: np.ndarray
    reach: np.ndarray
    unit: np.ndarray
    count: np.ndarray
    since: np.ndarray
    reach_to_try: np.ndarray

    @classmethod
    def none(cls, codes: np.ndarray, m: int) -> Nearby:
        n = len(codes)
        return cls(
            codes.copy(),
            np.full(n, -1, codes.dtype),
            np.empty((n, m + 1), np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.full(n, np.inf, codes.dtype),
        )


class Pieces(NamedTuple):
    """All of it."""

    network: Network
    piece: Piece
    kept: Kept
    nearby: Nearby
