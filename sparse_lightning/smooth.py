"""Smooth functions of the codes of one batch, as solvers see them: gradient, value, curvature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sparse_lightning.products import times, with_normal_squares


class SmoothTerm(Protocol):
    """A differentiable function of the codes (n, l) of one batch, known by its gradient.

    Attributes:
        is_recordable: whether each gradient is made by the same operations on the same device,
            so that they can be recorded and replayed.
    """

    is_recordable: bool

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        """Its gradient, (n, l) -> (n, l), in a tensor that the caller may write to.

        ``out``, where it is given, may be used to hold the result.
        """

    def restrict(self, rows: Tensor) -> SmoothTerm:
        """The same function of the samples ``rows`` (an index vector) alone."""

    def value(self, codes: Tensor) -> Tensor:
        """Its value per sample, (n, l) -> (n,), up to a constant of that sample."""

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Both, for little more than the gradient alone."""

    def prepared_for(self, gradients: int) -> SmoothTerm:
        """The same function, faster at that many gradients to come, where preparing it pays."""

    def expanded(self, codes: Tensor) -> Expansion | None:
        """To second order, None if no second derivative nearly holds for all samples."""

    def curvature(self, codes: Tensor) -> Curvature:
        """Bounds or estimates of its second derivative in any direction, near ``codes``."""

    def outset(self, codes: Tensor) -> Outset:
        """All that a search asks for where it sets out, in one look."""


class Expansion(NamedTuple):
    """A function of the codes of one batch, to second order.

    Attributes:
        values: per sample, (n,), up to a constant of that sample; of an energy (n, 1).
        gradient: (n, l).
        hessian: makes the second derivative (l, l), one for all samples, where it is asked for.
    """

    values: Tensor
    gradient: Tensor
    hessian: Callable[[], Tensor]


@dataclass(frozen=True)
class Curvature:
    r"""How far a function bends: :math:`\mu \le v^\top H v \le L` for unit vectors v.

    Attributes:
        lower: :math:`\mu`; 0 or less where it is not convex.
        upper: L, or an estimate of it.
        is_bound: whether both hold everywhere, so that a step of 1/L descends always.
    """

    lower: float
    upper: float
    is_bound: bool


class Outset(NamedTuple):
    """What a search has to know of a function where it sets out.

    Attributes:
        values: per sample, (n,), up to a constant of that sample; of an energy (n, 1), or (1, 1)
            where samples are coupled.
        gradient: (n, l).
        curvature: near there.
    """

    values: Tensor
    gradient: Tensor
    curvature: Curvature


@dataclass(frozen=True)
class Quadratic:
    r"""All that inference has to know where the smooth terms are quadratic in the codes.

    :math:`\sum_i \big[\frac12 z_i^\top G z_i - c_i^\top z_i + \lambda \|z_i\|_1\big]`, and the
    variance hinge.

    Attributes:
        gram: G, (l, l).
        drive: c, (n, l).
        sparsity_weight: :math:`\lambda`, one number or one of each sample, (n,).
        hinge: weight and threshold of the variance hinge, None without one.
        pairs: a and b in turns, (n, 2k, l), where each sample has a matrix of its own,
            :math:`G + \sum_k a_k a_k^\top - \sum_k b_k b_k^\top`; not with a hinge.
    """

    gram: Tensor
    drive: Tensor
    sparsity_weight: float | Tensor
    hinge: tuple[float, float] | None
    pairs: Tensor | None = None


@dataclass(frozen=True)
class Attraction:
    r"""The quadratic :math:`\frac{c}{2} \sum_i \|z_i - \bar z_i\|^2` that pulls codes to a centre.

    Args:
        curvature: c.
        centre: :math:`\bar z`, (n, l).
    """

    curvature: float
    centre: Tensor

    def add_gradient(self, gradient: Tensor, codes: Tensor) -> Tensor:
        r"""Add :math:`c (z - \bar z)` to ``gradient`` in place."""
        return gradient.add_(codes, alpha=self.curvature).sub_(self.centre, alpha=self.curvature)

    def value(self, codes: Tensor) -> Tensor:
        """Its value per sample, (n,)."""
        distances = codes - self.centre
        return torch.linalg.vecdot(distances, distances) * (self.curvature / 2)

    def restrict(self, rows: Tensor) -> Attraction:
        return replace(self, centre=self.centre[rows])


@dataclass
class Outlook:
    """What a search tells a function that may prepare for what is to come.

    Attributes:
        gradients: how many are still expected.
        codes, point: (n, l), the last codes, and what they have been extrapolated to.
        is_known: whether there will be that many for every sample, or some may be done before.
        looks: how often this has been told during the search.
        to_learn, most_units: what `sparse_lightning.pieces.cost` remembers.
    """

    gradients: int
    codes: Tensor
    point: Tensor
    is_known: bool = True
    looks: int = 0
    to_learn: float = math.inf
    most_units: float = 0.0

    def tell(self, gradients: int, codes: Tensor, point: Tensor) -> Outlook:
        """All of it anew."""
        self.gradients, self.codes, self.point = gradients, codes, point
        self.looks += 1
        return self


def largest_eigenvalue_bound(matrix: Tensor) -> float:
    r"""An upper bound of the largest eigenvalue of a positive semi-definite matrix (l, l).

    :math:`\|G^p\|_F^{1/p}` with :math:`p = 32`: never too small, and too large by at most a factor
    of :math:`l^{1/2p}`, 1.08 for l = 128.
    """
    norms = [torch.linalg.matrix_norm(matrix)]
    for squarings in (3, 2):
        matrix = matrix / torch.where(norms[-1] > 0, norms[-1], 1.0)
        for _ in range(squarings):
            matrix = with_normal_squares(matrix)
            matrix = times(matrix, matrix)
        norms.append(torch.linalg.matrix_norm(matrix))
    first, after_3, after_5 = torch.stack(norms).tolist()
    # The squarings round.
    return first * after_3 ** (1 / 2**3) * after_5 ** (1 / 2**5) * (1 + 1e-5)
