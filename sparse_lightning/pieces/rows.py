r"""Rows of Q for all samples at once, by small matrix products; symbols as in the package.

With k units E in which a sample differs from the usual piece, by signs on the diagonal of S,

.. math:: Q = Q_U + W_E^\top S P_E + P_E^\top S W_E + W_E^\top S A_{EE} S W_E ,

a row takes :math:`k^2 + 2 k l` multiplications, nearly, and about as many numbers have to be put
together for all rows of a sample.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.compiling import run_in_threads
from sparse_lightning.pieces.arrays import Network, Piece
from sparse_lightning.pieces.compiled_rows import put_together, write_rows

# Numbers of A between units that are put together at a time.
AT_A_TIME = 2**20


def learn_rows(network: Network, piece: Piece, wanted: Tensor) -> None:
    """Make rows of Q known.

    Args:
        network: the decoder.
        piece: of each sample, whose rows are written.
        wanted: which rows of each sample, (n, l + 1), bool.
    """
    others, order = torch.from_numpy((piece.active != network.usual).sum(1)).sort()
    counts, room, first = others.tolist(), Room(piece.hessian.dtype), 0
    while first < len(counts):
        # One sample, and others that differ in about as many units.
        last = first + 1
        while last < len(counts) and (last + 1 - first) * counts[last] ** 2 <= AT_A_TIME:
            last += 1
        samples = order[first:last]
        _learn(network, piece, samples, wanted[samples], counts[last - 1], room)
        first = last
    piece.is_known[:] |= wanted.numpy()


class Room:
    """Memory that is used again: fresh memory takes longer than what is written to it."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        """An array with anything in it; what had this name is lost."""
        size = math.prod(shape)
        if name not in self.kept or len(self.kept[name]) < size:
            self.kept[name] = np.empty(size, self.dtype)
        return self.kept[name][:size].reshape(shape)


def _learn(
    network: Network, piece: Piece, samples: Tensor, wanted: Tensor, others: int, room: Room
) -> None:
    """Rows of samples that differ in up to so many units from the usual piece."""
    (n, length), rows = wanted.shape, int(wanted.sum(1).max())
    signed, response = room("signed", n, others, length), room("response", n, others, length)
    between = room("between", n, others, others)
    left, right = room("left", n, rows, others), room("right", n, rows, others)
    which = samples.numpy(), wanted.numpy()
    given = piece.active, network.usual, network.units, network.response, network.gram
    parts = signed, response, between, left, right
    run_in_threads(put_together, signed.size, *which, *given, *parts)
    signed, response, between, left, right = (torch.from_numpy(part) for part in parts)
    right.baddbmm_(left, between)
    found = torch.bmm(left, response).baddbmm_(right, signed)
    arrays = found.numpy(), network.hessian, piece.hessian
    run_in_threads(write_rows, found.numel(), *which, *arrays)
