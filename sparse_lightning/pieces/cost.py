"""When it pays to go on piece by piece.

Counted in multiplications of large matrix products; other work counts by how long it takes beside
them, as measured on two cores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_lightning.reconstruction import LinearLeastSquares, MultiLayerTerm
from sparse_lightning.smooth import SmoothTerm

# Bytes of what is known of all samples, above which there are no pieces.
LARGEST = 2**29
# Gradients between two looks.
EVERY = 5
# Units that will yet switch, by those that lie between the last codes and their extrapolation.
STILL_TO_SWITCH = 8
# Of the most units that have switched, when that is over.
PAST = 0.8
# Of what rows cost, when units cost little.
LITTLE = 0.05
# Work for a number that is copied, for one in a sum over few rows, and in a small product.
COPIED, SUMMED, SMALL = 30, 5, 1.5


def in_pieces(smooth: SmoothTerm, gradients: int, codes: Tensor, point: Tensor) -> SmoothTerm:
    """The same function piece by piece, where that many gradients to come are worth it.

    Args:
        smooth: of a batch.
        gradients: expected after ``point``.
        codes: (n, l), the last ones.
        point: (n, l), to which they have been extrapolated.
    """
    if not isinstance(smooth, MultiLayerTerm) or not _can_be(smooth, codes):
        return smooth
    if gradients % EVERY or not pays(smooth, gradients, codes, point):
        return smooth
    from sparse_lightning.pieces.term import PiecewiseTerm  # takes long to import

    return PiecewiseTerm.at(smooth.in_gram_form(), point)


def _can_be(network: MultiLayerTerm, codes: Tensor) -> bool:
    n, length = codes.shape
    size = n * (length + 1) ** 2 * codes.element_size()
    return len(network.hidden) == 1 and codes.device.type == "cpu" and size <= LARGEST


def pays(network: MultiLayerTerm, gradients: int, codes: Tensor, point: Tensor) -> bool:
    """Whether the pieces' gradients, and what they have to learn, cost less than the network's.

    Not yet, while more and more units switch, or while what is to be learned gets less by more than
    the network's gradients cost meanwhile, as it does while codes become sparse.
    """
    m, length = network.hidden[0][0].shape
    if isinstance(network.top, LinearLeastSquares):
        own = 2 * m * (length + network.top.inputs.shape[1])
    else:
        own = m * (m + 2 * length)
    active_atoms = float((point != 0).sum(1).double().mean())
    saved = gradients * (own - SUMMED * active_atoms * m)
    if saved <= 0:
        return False
    rows, units = _to_learn(network, active_atoms, codes, point)
    outlook = network.outlook
    falls = outlook.to_learn - (rows + units)
    outlook.to_learn, outlook.most_units = rows + units, max(outlook.most_units, units)
    is_past_the_most = units <= max(PAST * outlook.most_units, LITTLE * rows)
    return is_past_the_most and falls < EVERY * own and rows + units < saved


def _to_learn(
    network: MultiLayerTerm, active_atoms: float, codes: Tensor, point: Tensor
) -> tuple[float, float]:
    """For rows of Q, and for units that switch."""
    weight, bias = network.hidden[0]
    m, length = weight.shape
    before, now = (torch.addmm(bias, z, weight.T) > 0 for z in (codes, point))
    differing = float((now ^ (now.double().mean(0) > 0.5)).sum(1).double().mean())
    switching = STILL_TO_SWITCH * float((now ^ before).sum(1).double().mean())
    rows = active_atoms * m * (SMALL * differing + 2 * length) + COPIED * differing * m
    gram = 0.0
    if isinstance(network.top, LinearLeastSquares):
        gram = m * network.top.inputs.shape[1] * (m / len(codes) + 1)
    return gram + rows, switching * m * SMALL * length
