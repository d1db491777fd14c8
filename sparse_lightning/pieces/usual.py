r"""The reconstruction term of one hidden layer by what samples have in common.

Symbols as in `sparse_lightning.pieces`. On the usual piece the input of unit j is its activation
if :math:`U_{jj} = 1`, else the activation is 0. Where a sample differs from it in units E, their
activations differ by :math:`d_j = |v_j|`, v being the inputs, and the gradient by y is

.. math::
    Q_U y + P_E^\top d_E + W_E^\top S \big(P_E y + A_{EE} d_E - c_E\big) - W^\top U c .

With k such units and a active atoms that takes :math:`k^2 + 2 k l + k a` multiplications and
the inputs of all units, where the network takes a product with A. Nothing has to be learned of a
sample: this is for the time in which too many units switch for `sparse_lightning.pieces.term`.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.compiling import run_in_threads
from sparse_lightning.pieces.arrays import Network
from sparse_lightning.pieces.common import (
    AsTheNetwork,
    arrays_of,
    constant_of,
    pull_of,
    room_for,
    usual_of,
)
from sparse_lightning.products import relu_layer, times_less
from sparse_lightning.reconstruction import MultiLayerTerm


class Room(NamedTuple):
    """For what is found out about samples at each gradient, of which only the last is kept.

    Attributes:
        inputs: of hidden units, (n, m).
        others: units in which a sample differs, (n, m), of which the first ``count`` are written.
        changes: of their activations.
        slopes: along them.
        count: (n,).
    """

    inputs: Tensor
    others: np.ndarray
    changes: np.ndarray
    slopes: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, inputs: Tensor) -> Self:
        """Of the size of these."""
        numbers = inputs.numpy()
        others, counts = np.empty(numbers.shape, np.uint32), np.zeros(len(numbers), np.int64)
        return cls(inputs, others, np.empty_like(numbers), np.empty_like(numbers), counts)

    def up_to(self, samples: int) -> Room:
        """A part, for so many samples."""
        return Room(*(part[:samples] for part in self))


class UsualTerm(AsTheNetwork):
    """As `MultiLayerTerm`, whose gradients these are."""

    def __init__(
        self, network: MultiLayerTerm, common: Network, constant: np.ndarray, room: Room
    ) -> None:
        super().__init__(network)
        self.common, self.constant, self.room = common, constant, room

    @classmethod
    def at(cls, network: MultiLayerTerm, codes: Tensor) -> Self:
        """For a network on the CPU with one hidden layer, for codes that are like these (n, l)."""
        network = network.in_gram_form()
        activations = relu_layer(codes, *network.hidden[0])
        usual = usual_of(activations > 0)
        constant = constant_of(network, usual)
        return cls(network, arrays_of(network, usual), constant, Room.of(activations))

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        from sparse_lightning.pieces.compiled_usual import add_up  # takes long to import

        codes = codes.contiguous()
        gradient, (weight, bias) = room_for(codes, out), self.network.hidden[0]
        inputs, *room = self.room
        times_less(codes, weight.T, -bias, out=inputs)
        common, drive = self.common, self.network.top.drive.numpy()
        known = common.usual, common.units, common.response, common.hessian, common.gram, drive
        pull = pull_of(self.network, self.constant.dtype)
        given = codes.numpy(), inputs.numpy(), *known, self.constant, pull, *room
        # Few parts: each reads all of A.
        run_in_threads(add_up, inputs.numel(), torch.get_num_threads(), *given, gradient.numpy())
        return gradient

    @property
    def others(self) -> float:
        """In how many units samples differed from the usual piece, the last time, on average."""
        return float(self.room.count.mean())

    def prepared_for(self, gradients: int) -> UsualTerm:
        return self

    def restrict(self, rows: Tensor) -> UsualTerm:
        constant = self.constant[rows.numpy()]
        return UsualTerm(
            self.network.restrict(rows), self.common, constant, self.room.up_to(len(rows))
        )
