"""The reconstruction term of one hidden layer, its gradient piece by piece."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.compiling import run_in_threads
from sparse_lightning.pieces.arrays import Kept, Nearby, Network, Piece, Pieces, Wanted
from sparse_lightning.pieces.cost import CHANGED
from sparse_lightning.pieces.loops import active_rows, advance, make_room
from sparse_lightning.products import advantage, relu_layer, times
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Curvature, Expansion, Outset

# Rows of Q, or units, that are learned at a time.
AT_A_TIME = 1024
# Gradients after which all is learned anew.
LASTS = 500
# Gradients of the network that pieces may cost too much.
MOST_EXCESS = 10


class PiecewiseTerm:
    """As `MultiLayerTerm`, whose values and gradients these are; see `sparse_lightning.pieces`.

    Where learning what a gradient needs would take longer than the network does for it, the
    network is asked instead, until that has taken as long. A search in which pieces turn out to
    cost more than the network goes back to it.
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
        if not self.knowledge.gradient(codes, self.place, gradient):
            return self.network.gradient(codes, gradient)
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
        pieces: the arrays that compiled loops read and write. ``active``, ``hessian`` and
            ``response`` are parts of them as tensors, which share their memory.
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
        self.units, self.atoms, self.gram = units, units.T.contiguous(), top.gram
        self.active = active
        size = torch.linalg.vector_norm(weight, dim=1)
        self.pieces = Pieces(
            Network(units.numpy(), self.atoms.numpy(), top.gram.numpy(), size.numpy()),
            Piece.at(top.drive.numpy(), active.numpy(), constant.numpy()),
            Kept.none(n, m, length, number),
            Nearby.none(codes.numpy(), m),
        )
        self.hessian = torch.from_numpy(self.pieces.piece.hessian)
        self.response = torch.from_numpy(self.pieces.kept.response)
        self.wanted = Wanted.nothing(n, m, length)
        self.found = np.empty((AT_A_TIME, 3), np.int64)
        self.room = units.new_empty(AT_A_TIME, m)
        # At first whatever is wanted will be learned.
        self.spent_on_network = math.inf
        self.asked, self.excess, self.switches = 0, 0.0, 0

    def gradient(self, codes: Tensor, place: Tensor, out: Tensor) -> bool:
        """Write the gradients at ``codes`` to ``out``, or say that the network is to be asked."""
        wanted = Wanted(*(part[: len(codes)] for part in self.wanted))
        wanted.waits[:], wanted.row[:] = True, False
        at, is_first = place.numpy(), self.asked == 0
        self.asked += 1
        is_known = self._know(codes, at, wanted, out)
        if not is_first:
            self._count(len(codes), is_known)
        return is_known

    def _know(self, codes: Tensor, place: np.ndarray, wanted: Wanted, out: Tensor) -> bool:
        while True:
            arguments = codes.numpy(), place, *self.pieces, wanted, self.pull, out.numpy()
            run_in_threads(advance, codes.numel(), *arguments)
            if not wanted.waits.any():
                self.spent_on_network = 0.0
                return True
            if not self._is_worthwhile(wanted):
                return False
            self._learn(place, wanted)

    def _count(self, samples: int, is_known: bool) -> None:
        """Of the work for a gradient, what came from switching units that are kept."""
        switches = int(self.pieces.kept.num_switches.sum())
        work = (switches - self.switches) * advantage() * CHANGED * 2 * len(self.atoms) ** 2
        self.switches = switches
        network = samples * self.network_cost
        # As if all rows were known: how many are is counted only where it may matter.
        if work > network:
            work *= self.pieces.piece.is_known.mean()
        self.excess = max(0.0, self.excess + work / network - (1 if is_known else 0))

    def _is_worthwhile(self, wanted: Wanted) -> bool:
        """Whether learning pays; multiplications, of which a product with A is most."""
        m, length = self.units.shape
        cost = wanted.row.sum() * m * (m + length) + wanted.count.sum() * m * length
        network = len(wanted.waits) * self.network_cost
        if cost <= network + self.spent_on_network:
            return True
        self.spent_on_network += network
        return False

    def _learn(self, place: np.ndarray, wanted: Wanted) -> None:
        """Some of what is wanted, at least something."""
        # Of one layout, or loops would be compiled for another one.
        position, rows = (
            torch.from_numpy(np.ascontiguousarray(index)) for index in wanted.row.nonzero()
        )
        if len(rows) > 0:
            samples = torch.from_numpy(place)[position]
            self._learn_rows(samples, rows)
            self.pieces.piece.is_known[samples.numpy(), rows.numpy()] = True
            wanted.row[:] = False
        found = self.found[: make_room(place, self.pieces, wanted, self.found)]
        inputs = self.room[: len(found)]
        arrays = self.pieces.network.gram, self.pieces.piece.active, inputs.numpy()
        run_in_threads(active_rows, inputs.numel(), found, *arrays)
        sample, slot, _ = torch.from_numpy(found).unbind(1)
        self.response[sample, slot] = times(inputs, self.units)

    def _learn_rows(self, samples: Tensor, rows: Tensor) -> None:
        for sample, row in zip(samples.split(AT_A_TIME), rows.split(AT_A_TIME)):
            inputs = self.atoms[row].mul_(self.active[sample])
            outputs = times(inputs, self.gram).mul_(self.active[sample])
            self.hessian[sample, row] = times(outputs, self.units)
