"""The reconstruction term of one hidden layer, its gradient piece by piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from sparse_lightning.compiling import run_in_threads
from sparse_lightning.pieces.arrays import Kept, Nearby, Network, Piece, Pieces
from sparse_lightning.pieces.cost import LOOPED
from sparse_lightning.pieces.loops import advance
from sparse_lightning.pieces.rows import learn_rows
from sparse_lightning.products import advantage, relu_layer, times
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Curvature, Expansion, Outset

# Gradients after which all is learned anew.
LASTS = 500
# Gradients of the network that pieces may cost too much.
MOST_EXCESS = 10


class PiecewiseTerm:
    """As `MultiLayerTerm`, whose values and gradients these are; see `sparse_lightning.pieces`.

    A search in which pieces turn out to cost more than the network goes back to it.
    """

    is_recordable = False

    def __init__(self, network: MultiLayerTerm, place: Tensor, knowledge: Knowledge) -> None:
        self.network, self.place, self.knowledge = network, place, knowledge
        self.last: Tensor | None = None

    @classmethod
    def at(cls, network: MultiLayerTerm, codes: Tensor) -> Self:
        """For a network on the CPU with one hidden layer, from codes (n, l) on."""
        return cls(network, torch.arange(len(codes)), Knowledge(network, codes))

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        self.last = codes = codes.contiguous()
        gradient = torch.empty_like(codes) if out is None or not out.is_contiguous() else out
        self.knowledge.gradient(codes, self.place, gradient)
        return gradient

    def value(self, codes: Tensor) -> Tensor:
        return self.network.value(codes)

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.value_and_gradient(codes)

    def expanded(self, codes: Tensor) -> Expansion | None:
        return self.network.expanded(codes)

    def curvature(self, codes: Tensor) -> Curvature:
        return self.network.curvature(codes)

    def outset(self, codes: Tensor) -> Outset:
        return self.network.outset(codes)

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
        weight, bias = network.hidden[0]
        units, top = torch.cat((weight, bias[:, None]), 1), network.top.in_gram_form()
        (m, length), n, number = units.shape, len(codes), codes.numpy().dtype
        active = relu_layer(codes, weight, bias) > 0
        constant = -times(active * top.drive, weight)
        pull = 0.0
        if network.attraction is not None:
            pull = network.attraction.curvature
            constant.sub_(network.attraction.centre, alpha=pull)
        self.pull = number.type(pull)
        self.pieces = Pieces(
            _network_of(units, top.gram, usual=2 * active.sum(0) > n),
            Piece.at(top.drive.numpy(), active.numpy(), constant.numpy()),
            Kept.none(n, m, length, number),
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


def _network_of(units: Tensor, gram: Tensor, usual: Tensor) -> Network:
    """The decoder, and the usual piece."""
    usual_units = units * usual[:, None]
    response = times(gram, usual_units)
    parts = (
        units,
        units.T.contiguous(),
        gram,
        torch.linalg.vector_norm(units[:, :-1], dim=1),
        usual,
        response,
        times(usual_units.T.contiguous(), response),
    )
    return Network(*(part.numpy() for part in parts))
