r"""Penalties :math:`R(z)` on the codes, by their value and their proximal step.

An energy weighs its penalty with :math:`\lambda`. A solver never differentiates a penalty. It takes
a gradient step on all other terms, and then the proximal step

.. math::
    \mathrm{prox}_{\eta\lambda R}(v) = \arg\min_z \tfrac12 \|z - v\|^2 + \eta\lambda R(z) .

A penalty of one's own is one class with `value` and `prox` (Parikh & Boyd, "Proximal Algorithms",
2014, has a catalogue).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_lightning.registry import register


class Penalty(ABC):
    """Base of all penalties.

    Attributes:
        is_convex: whether R is a convex function.
        is_signed: whether codes may have negative components. Encoders that end in a relu cannot
            predict such codes.
    """

    is_convex: bool = True
    is_signed: bool = False

    @abstractmethod
    def value(self, codes: Tensor) -> Tensor:
        """R of each sample, unweighted, (n, l) -> (n,)."""

    @abstractmethod
    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        r"""The proximal step of :math:`\tau R`, (n, l) -> (n, l).

        Args:
            codes: (n, l).
            threshold: :math:`\tau = \eta\lambda \ge 0`, one number or one of each sample, (n, 1).
        """


@register
@dataclass(frozen=True)
class NonNegativeL1(Penalty):
    r""":math:`R(z) = \|z\|_1` for :math:`z \ge 0`, with :math:`\mathrm{prox}(v) = (v - \tau)_+`.

    The paper's penalty (Evtimova & LeCun 2022, eq. 5).
    """

    def value(self, codes: Tensor) -> Tensor:
        return codes.abs().sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return torch.relu(codes - threshold)


@register
@dataclass(frozen=True)
class NonNegativeL0(Penalty):
    r""":math:`R(z) = \|z\|_0` for :math:`z \ge 0`: the number of active components.

    The proximal step is the hard threshold: v where :math:`v > \sqrt{2\tau}`, 0 elsewhere
    (Blumensath & Davies, "Iterative thresholding for sparse approximations", 2008). What is active
    is not shrunk. Codes that start at 0 stay there unless one step passes the threshold.
    """

    is_convex = False

    def value(self, codes: Tensor) -> Tensor:
        return (codes != 0).to(codes.dtype).sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        is_kept = (codes > 0) & (codes.square() > 2 * threshold)
        return torch.where(is_kept, codes, 0.0)
