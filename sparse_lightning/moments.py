r"""Mean and scatter of code components over a batch, and what the variance hinge makes of them.

The hinge :math:`\sum_j [(T - \sigma_j)_+]^2` has the gradient
:math:`-\frac{2}{n-1} \big(\frac{T}{\sigma_j} - 1\big)_+ (z_{ij} - \mu_j)` (Evtimova & LeCun 2022,
eq. 12), which needs no more of a batch than its moments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


@dataclass(frozen=True)
class Moments:
    r"""Count, mean and scatter :math:`\sum_i (z_{ij} - \mu_j)^2` of each code component.

    Two sets of samples merge exactly and without cancellation (Chan, Golub & LeVeque 1979).
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, codes: Tensor) -> Moments:
        """The moments of ``codes`` (n, l) over their samples."""
        mean = codes.mean(0)
        return cls(len(codes), mean, (codes - mean).square_().sum(0))

    def merge(self, other: Moments | None) -> Moments:
        if other is None:
            return self
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = shift.square() * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def standard_deviation(self) -> Tensor:
        r"""Unbiased :math:`\sigma_j`, shape (l,)."""
        return (self.scatter / (self.count - 1)).sqrt()


def rounding_of_a_scatter(count: int, dtype: torch.dtype) -> float:
    """The largest scatter, in units of the squared total, that rounding of the mean can make."""
    return (16 * EPSILON[dtype] / count) ** 2 * (count - 1)


def relative_shortfall(threshold: float, count: int, total: Tensor, scatter: Tensor) -> Tensor:
    r""":math:`(T/\sigma_j - 1)_+`, and 0 where :math:`\sigma_j = 0`, shape (l,).

    Args:
        threshold: T.
        count: n.
        total: sum of each component over the samples, (l,).
        scatter: :math:`(n - 1) \sigma_j^2`, (l,).
    """
    # A component that is constant up to the rounding of its mean has no direction to grow in:
    # an infinite scatter gives it a shortfall of 0.
    rounding = rounding_of_a_scatter(count, total.dtype)
    scatter = torch.addcmul(scatter, total, total, value=-rounding)
    inverse = torch.threshold_(scatter, 0.0, math.inf).rsqrt_()
    return inverse.mul_(threshold * math.sqrt(count - 1)).sub_(1.0).relu_()
