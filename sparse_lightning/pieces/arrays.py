"""What is known of each sample of a batch, as arrays that compiled loops read and write.

n samples, l atoms, m hidden units, room to keep k units; symbols as in `sparse_lightning.pieces`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparse_lightning.pieces.sizes import ROOM


class Network(NamedTuple):
    """The decoder, the same for all samples.

    Attributes:
        units: W, (m, l + 1), a row for each hidden unit.
        atoms: its transpose, contiguous.
        gram: A, (m, m).
        size: (m,), norms of the rows of :math:`W_1`.
    """

    units: np.ndarray
    atoms: np.ndarray
    gram: np.ndarray
    size: np.ndarray


class Piece(NamedTuple):
    """The linear function that each sample is on.

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
    """Units that have switched.

    Attributes:
        unit: (n, k), of which the first ``count`` are units.
        count: (n,).
        slot: (n, m), where in ``unit`` a unit is, -1 if it is not.
        response: :math:`u_j`, M without j, (n, k, l + 1).
        has_switched: (n,), a bit for each slot that changes whenever its unit switches.
        told: (n, k), the bits as they were when the response was last right.
        num_switches: (n,), how many there have been.
    """

    unit: np.ndarray
    count: np.ndarray
    slot: np.ndarray
    response: np.ndarray
    has_switched: np.ndarray
    told: np.ndarray
    num_switches: np.ndarray

    @classmethod
    def none(cls, n: int, m: int, length: int, dtype: np.dtype) -> Kept:
        return cls(
            np.zeros((n, ROOM), np.int64),
            np.zeros(n, np.int64),
            np.full((n, m), -1, np.int16),
            np.empty((n, ROOM, length), dtype),
            np.zeros(n, np.uint64),
            np.zeros((n, ROOM), np.uint64),
            np.zeros(n, np.int64),
        )


class Nearby(NamedTuple):
    """Units that can switch while a code moves a little.

    Attributes:
        centre: (n, l), the code at which the inputs of all units were last taken.
        reach: (n,), how far from there no units but those listed can switch; -1 without a list.
        unit: (n, m + 1), of which the first ``count`` are listed; among them are those that had to
            switch when the list was made.
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


class Wanted(NamedTuple):
    """What has to be known before the gradients of some samples can be.

    Attributes:
        waits: (n,), samples without a gradient yet.
        row: (n, l + 1), rows of Q.
        switching: (n, m + 1), units that switch and are not kept; the first ``count`` of them.
        count: (n,).
    """

    waits: np.ndarray
    row: np.ndarray
    switching: np.ndarray
    count: np.ndarray

    @classmethod
    def nothing(cls, n: int, m: int, length: int) -> Wanted:
        return cls(
            np.zeros(n, bool),
            np.zeros((n, length), bool),
            np.empty((n, m + 1), np.int64),
            np.zeros(n, np.int64),
        )
