"""The reconstruction term of one hidden layer, its gradient piece by piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from sparse_lightning.compiling import run_in_threads
from sparse_lightning.pieces.arrays import Kept, Nearby, Piece, Pieces
from sparse_lightning.pieces.common import (
    AsTheNetwork,
    arrays_of,
    constant_of,
    pull_of,
    room_for,
    usual_of,
)
from sparse_lightning.pieces.cost import LOOPED
from sparse_lightning.pieces.loops import advance
from sparse_lightning.pieces.rows import learn_rows
from sparse_lightning.products import advantage, relu_layer
from sparse_lightning.reconstruction import MultiLayerTerm

# Gradients after which all is learned anew.
LASTS = 500
# Gradients of the network that pieces may cost too much.
MOST_EXCESS = 10


class PiecewiseTerm(AsTheNetwork):
    """As `MultiLayerTerm`, whose values and gradients these are; see `sparse_lightning.pieces`.

    A search in which pieces turn out to cost more than the network goes back to it.
    """

    def __init__(self, network: MultiLayerTerm, place: Tensor, knowledge: Knowledge) -> None:
        super().__init__(network)
        self.place, self.knowledge = place, knowledge
        self.last: Tensor | None = None

    @classmethod
    def at(cls, network: MultiLayerTerm, codes: Tensor) -> Self:
        """For a network on the CPU with one hidden layer, from codes (n, l) on."""
        return cls(network, torch.arange(len(codes)), Knowledge(network, codes))

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        self.last = codes = codes.contiguous()
        gradient = room_for(codes, out)
        self.knowledge.gradient(codes, self.place, gradient)
        return gradient

    def prepared_for(self, gradients: int) -> PiecewiseTerm | MultiLayerTerm:
        """Itself, or the network for good, or what is known anew, before rounding adds up."""
        if self.knowledge.excess > MOST_EXCESS:
            return replace(self.network, may_be_in_pieces=False).prepared_for(gradients)
        if self.knowledge.asked >= LASTS and self.last is not None:
            return PiecewiseTerm.at(self.network, self.last)
        return self

    def restrict(self, rows: Tensor) -> PiecewiseTerm:
        return PiecewiseTerm(self.network.restrict(rows), self.place[rows], self.knowledge)


class Knowledge:
    """What is known of each sample of a batch; it grows with the codes that are asked about.

    Attributes:
        pieces: the arrays that compiled loops read and write.
        asked: how many gradients there have been.
        excess: what they cost above what the network's would have, in gradients of the network.
    """

    def __init__(self, network: MultiLayerTerm, codes: Tensor) -> None:
        self.network_cost = network.multiplications
        network = network.in_gram_form()
        weight, bias = network.hidden[0]
        active = relu_layer(codes, weight, bias) > 0
        constant = constant_of(network, active)
        self.pull = pull_of(network, constant.dtype)
        n, m = active.shape
        self.pieces = Pieces(
            arrays_of(network, usual_of(active)),
            Piece.at(network.top.drive.numpy(), active.numpy(), constant),
            Kept.none(n, m, codes.shape[1] + 1, constant.dtype),
            Nearby.none(codes.numpy(), m),
        )
        wanted = torch.cat((codes != 0, codes.new_ones(n, 1, dtype=torch.bool)), 1)
        learn_rows(self.pieces.network, self.pieces.piece, wanted)
        self.asked, self.excess, self.work = 0, 0.0, 0

    def gradient(self, codes: Tensor, place: Tensor, out: Tensor) -> None:
        """Write the gradients at ``codes`` to ``out``."""
        arguments = codes.numpy(), place.numpy(), *self.pieces, self.pull, out.numpy()
        run_in_threads(advance, codes.numel(), *arguments)
        self.asked += 1
        self._count(len(codes))

    def _count(self, samples: int) -> None:
        """The work of learning and switching, but that of the first gradient."""
        work = int(self.pieces.kept.work.sum())
        if self.asked > 1:
            cost = advantage() * LOOPED * (work - self.work) / (samples * self.network_cost)
            self.excess = max(0.0, self.excess + cost - 1)
        self.work = work
