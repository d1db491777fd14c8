r"""The squared error of a linear function of the codes: by its matrix W, or by :math:`W^\top W`.

Such is the reconstruction term of a linear decoder, and that of a relu network as a function of its
last hidden layer (`sparse_lightning.reconstruction`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from sparse_lightning.products import times, times_less
from sparse_lightning.smooth import Curvature, Expansion, Outset, largest_eigenvalue_bound


def mean_squares(values: Tensor) -> Tensor:
    """The mean square of each sample, (n, d) -> (n,)."""
    return torch.linalg.vecdot(values, values) / values.shape[1]


class Recordable:
    """Made of the same operations each time, and as fast as it gets."""

    is_recordable = True

    def prepared_for(self, gradients: int) -> Self:
        return self

    def expanded(self, codes: Tensor) -> Expansion | None:
        return None


@dataclass(frozen=True)
class QuadraticTerm(Recordable):
    r""":math:`\sum_i \frac12 z_i^\top G z_i - c_i^\top z_i`, up to a constant.

    Attributes:
        gram: G, (l, l).
        drive: c, (n, l).
        floor: a number that no eigenvalue of G is below.
        offset: (n,) to add to each sample's value.
    """

    gram: Tensor
    drive: Tensor
    floor: float = 0.0
    offset: Tensor | None = None

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        return times_less(codes, self.gram, self.drive, out)

    def value(self, codes: Tensor) -> Tensor:
        return self.value_and_gradient(codes)[0]

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self.gradient(codes)
        values = torch.linalg.vecdot(codes, gradient - self.drive) / 2
        return values if self.offset is None else values + self.offset, gradient

    def outset(self, codes: Tensor) -> Outset:
        return Outset(*self.value_and_gradient(codes), self.curvature(codes))

    def curvature(self, codes: Tensor) -> Curvature:
        return Curvature(self.floor, largest_eigenvalue_bound(self.gram), is_bound=True)

    def product(self, codes: Tensor) -> Tensor:
        """The second derivative times each row of ``codes``."""
        return times(codes, self.gram)

    def hessian(self, directions: Tensor) -> Tensor:
        """The second derivative between the columns of ``directions`` (l, k), (k, k)."""
        return times(times(directions.T, self.gram), directions)

    def diagonal(self) -> Tensor:
        """Of the second derivative, (l,)."""
        return self.gram.diagonal()

    def expanded_along(self, point: Tensor, directions: Tensor) -> Expansion:
        """As a function of t (n, k), at p + J t, with the same p for all samples.

        Args:
            point: p, (1, l).
            directions: J, (l, k).
        """
        gradient = times(point, self.gram) - self.drive
        values = (gradient - self.drive) @ point[0] / 2
        if self.offset is not None:
            values = values + self.offset
        return Expansion(values, times(gradient, directions), partial(self.hessian, directions))

    def of_units(self, units: Tensor) -> Self:
        """Where all other components are 0."""
        gram = self.gram[units].index_select(1, units)
        return replace(self, gram=gram, drive=self.drive.index_select(1, units))

    @property
    def multiplications(self) -> int:
        """For the gradient of one sample."""
        return self.gram.numel()

    def in_gram_form(self) -> Self:
        return self

    def restrict(self, rows: Tensor) -> QuadraticTerm:
        offset = None if self.offset is None else self.offset[rows]
        return replace(self, drive=self.drive[rows], offset=offset)


@dataclass(frozen=True)
class LinearLeastSquares(Recordable):
    r""":math:`\sum_i \frac1d \|x_i - W z_i\|^2` by two products with W, without its Gram matrix."""

    inputs: Tensor
    weight: Tensor

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        return self._gradient(self._residual(codes), out)

    def value(self, codes: Tensor) -> Tensor:
        return mean_squares(self._residual(codes))

    def value_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        residual = self._residual(codes)
        return mean_squares(residual), self._gradient(residual)

    def _residual(self, codes: Tensor) -> Tensor:
        return times_less(codes, self.weight.T, self.inputs)

    def _gradient(self, residual: Tensor, out: Tensor | None = None) -> Tensor:
        return times(residual.mul_(2 / self.inputs.shape[1]), self.weight, out)

    def hessian(self, directions: Tensor) -> Tensor:
        """The second derivative between the columns of ``directions`` (m, k), (k, k)."""
        return self._hessian(times(self.weight, directions))

    def _hessian(self, responses: Tensor) -> Tensor:
        return times(responses.T, responses).mul_(2 / len(self.weight))

    def expanded_along(self, point: Tensor, directions: Tensor) -> Expansion:
        """As a function of t (n, k), at p + J t, with the same p for all samples.

        Args:
            point: p, (1, m).
            directions: J, (m, k).
        """
        responses = times(self.weight, directions)
        residual = times(point, self.weight.T) - self.inputs
        values = mean_squares(residual)
        gradient = times(residual, responses).mul_(2 / len(self.weight))
        return Expansion(values, gradient, partial(self._hessian, responses))

    def diagonal(self) -> Tensor:
        """Of the second derivative, (m,)."""
        return self.weight.square().sum(0).mul_(2 / len(self.weight))

    def of_units(self, units: Tensor) -> Self:
        """Where all other components are 0."""
        return replace(self, weight=self.weight.index_select(1, units))

    def product(self, codes: Tensor) -> Tensor:
        """The second derivative times each row of ``codes``."""
        return self._gradient(times(codes, self.weight.T))

    def prepared_for(self, gradients: int) -> LinearLeastSquares | QuadraticTerm:
        r"""The Gram form, if it takes fewer multiplications in all.

        It costs :math:`m^2 d + n m d` once and :math:`n m^2` per gradient, against
        :math:`2 n m d` (W is d x m, there are n samples).
        """
        (n, d), m = self.inputs.shape, self.weight.shape[1]
        if gradients * n * m * (2 * d - m) <= m * m * d + n * m * d:
            return self
        return self.in_gram_form()

    @property
    def multiplications(self) -> int:
        """For the gradient of one sample."""
        return 2 * self.weight.numel()

    def in_gram_form(self) -> QuadraticTerm:
        r"""By :math:`W^\top W`, which takes the place of two products with W."""
        gram, drive = times(self.weight.T, self.weight), times(self.inputs, self.weight)
        d = len(self.weight)
        offset = self.inputs.square().mean(1)
        return QuadraticTerm(gram.mul_(2 / d), drive.mul_(2 / d), offset=offset)

    def restrict(self, rows: Tensor) -> LinearLeastSquares:
        return replace(self, inputs=self.inputs[rows])
