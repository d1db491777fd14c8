r"""The variance hinge: what keeps the codes of a batch from shrinking to nothing.

.. math::
    \beta \sum_j \big[(T - \sigma_j)_+\big]^2, \qquad
    \sigma_j^2 = \tfrac{1}{n-1} \sum_i (z_{ij} - \mu_j)^2 .

It pushes the standard deviation of each code component over a mini-batch above the threshold
:math:`T`. It couples the samples of the batch, but only through count, mean and scatter of each
component (`Moments`), which merge exactly over parts of a batch.

Source: Evtimova & LeCun 2022, eq. 9 to 12 and appendix A.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    r"""Count n, mean (l,) and scatter :math:`\sum_i (z_{ij} - \mu_j)^2` (l,) of codes (n, l).

    Two sets of samples merge exactly and without cancellation (Chan, Golub & LeVeque 1979).
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, codes: Tensor) -> Moments:
        """The moments of ``codes`` (n, l) over their samples."""
        mean = codes.mean(-2)
        return cls(codes.shape[-2], mean, (codes - mean.unsqueeze(-2)).square().sum(-2))

    def merge(self, other: Moments | None) -> Moments:
        """The moments of both sets of samples together."""
        if other is None or other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = shift.square() * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def standard_deviation(self) -> Tensor:
        r"""Unbiased :math:`\sigma_j`, shape (l,); 0 for one sample."""
        return (self.scatter / max(self.count - 1, 1)).sqrt()


@dataclass(frozen=True)
class VarianceHinge:
    r""":math:`\beta \sum_j [(T - \sigma_j)_+]^2` as a function of a batch of codes (n, l).

    Attributes:
        weight: :math:`\beta`.
        threshold: T.
    """

    weight: float
    threshold: float

    def value(self, moments: Moments) -> Tensor:
        """The hinge of a batch with these moments, a scalar."""
        shortfall = (self.threshold - moments.standard_deviation()).relu()
        return self.weight * shortfall.square().sum(-1)

    def gradient(self, codes: Tensor, moments: Moments) -> Tensor:
        r""":math:`-\frac{2\beta}{n-1} \big(\frac{T}{\sigma_j} - 1\big)_+ (z_{ij} - \mu_j)`, eq. 12.

        It is 0 where :math:`\sigma_j = 0`.

        Args:
            codes: (n, l), all samples of the batch or some of them.
            moments: of the whole batch.
        """
        scale = -2 * self.weight / (moments.count - 1)
        pull = scale * self._relative_shortfall(moments)
        return (codes - moments.mean.unsqueeze(-2)) * pull.unsqueeze(-2)

    def _relative_shortfall(self, moments: Moments) -> Tensor:
        r""":math:`(T/\sigma_j - 1)_+`, and 0 where :math:`\sigma_j = 0`, shape (l,)."""
        # A component that is constant up to the rounding of its mean has no direction to grow in:
        # an infinite scatter gives it a shortfall of 0.
        rounding = rounding_of_scatter(moments.count, moments.mean.dtype)
        total = moments.mean * moments.count
        scatter = torch.addcmul(moments.scatter, total, total, value=-rounding)
        inverse = torch.where(scatter <= 0, math.inf, scatter).rsqrt()
        return (inverse * (self.threshold * math.sqrt(moments.count - 1)) - 1).relu()

    def curvature_bound(self, count: int) -> float:
        r"""An upper bound of the hinge's curvature, :math:`2\beta/(n-1)`.

        For :math:`\sigma < T` the Hessian of :math:`(T-\sigma)^2` is
        :math:`2\nabla\sigma\nabla\sigma^\top - 2(T-\sigma)\nabla^2\sigma`. :math:`\sigma` is
        convex, so the second part is at most 0. The first is bounded by
        :math:`\|\nabla\sigma\|^2 = 1/(n-1)`. There is no lower bound.
        """
        return 2 * self.weight / (count - 1)


def rounding_of_scatter(count: int, dtype: torch.dtype) -> float:
    """The largest scatter, in units of the squared total, that rounding of the mean can make."""
    return (16 * torch.finfo(dtype).eps / count) ** 2 * (count - 1)
