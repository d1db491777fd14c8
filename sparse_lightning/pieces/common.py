"""What two ways to a gradient have in common: the network's parts, and all that is not theirs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.pieces.arrays import Network
from sparse_lightning.products import times
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Curvature, Expansion, Outset


class AsTheNetwork:
    """A `MultiLayerTerm` whose gradient is made in another way; the rest is the network's."""

    is_recordable = False

    def __init__(self, network: MultiLayerTerm) -> None:
        self.network = network

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


def room_for(codes: Tensor, out: Tensor | None) -> Tensor:
    """Where compiled loops may write a gradient at ``codes`` to."""
    return torch.empty_like(codes) if out is None or not out.is_contiguous() else out


def usual_of(active: Tensor) -> Tensor:
    """Which units are active in most samples, (n, m) -> (m,)."""
    return 2 * active.sum(0) > len(active)


def arrays_of(network: MultiLayerTerm, usual: Tensor) -> Network:
    """The decoder, in Gram form, and the piece on which ``usual`` units are active."""
    weight, bias = network.hidden[0]
    units, gram = torch.cat((weight, bias[:, None]), 1), network.top.gram
    usual_units = units * usual[:, None]
    response = times(gram, usual_units)
    parts = (
        units,
        units.T.contiguous(),
        gram,
        torch.linalg.vector_norm(weight, dim=1),
        usual,
        response,
        times(usual_units.T.contiguous(), response),
    )
    return Network(*(part.numpy() for part in parts))


def constant_of(network: MultiLayerTerm, active: Tensor) -> np.ndarray:
    """Of the gradient where units are active, what does not depend on the code, (n, l).

    Args:
        network: in Gram form.
        active: (n, m), or (m,) for all samples.
    """
    drive, attraction = network.top.drive, network.attraction
    constant = -times(active * drive, network.hidden[0][0])
    if attraction is not None:
        constant.sub_(attraction.centre, alpha=attraction.curvature)
    return constant.numpy()


def pull_of(network: MultiLayerTerm, dtype: np.dtype) -> np.floating:
    """The curvature of the attraction, by which codes count in the gradient beside the constant."""
    return dtype.type(0.0 if network.attraction is None else network.attraction.curvature)
