r"""A quadratic for each sample, which learns from the steps that are taken.

Its second derivative is

.. math::
    B = \kappa\, \Big(H + \sum_k a_k a_k^\top - \sum_k b_k b_k^\top\Big) ,

one matrix H for all samples, and of each sample its own scale :math:`\kappa` and a pair of vectors
for each step s that it has learned from (Broyden, Fletcher, Goldfarb and Shanno; Nocedal & Wright
2006, eq. 6.19),

.. math::
    \sqrt{\kappa}\, a = y / \sqrt{y^\top s}, \quad \sqrt{\kappa}\, b = B s / \sqrt{s^\top B s},
    \quad y = \nabla(z + s) - \nabla(z) ,

after which B s = y. Its minimum with an l1 term over :math:`z \ge 0` is a positive lasso for the
compiled loops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.linalg import vecdot

from sparse_lightning.smooth import Quadratic, largest_eigenvalue_bound

# The least and the most that is believed of a scale that is measured.
LEAST_SCALE, MOST_SCALE = 0.5, 16.0
# A step teaches nothing where the gradient turned by less than this part of what was expected:
# the function is nearly flat there, or concave.
LEAST_TURN = 0.05
INNER_ITERATIONS = 100


@dataclass(frozen=True)
class QuasiNewton:
    r"""The second derivatives of the samples.

    Attributes:
        hessian: H, (l, l).
        largest: a bound of the largest eigenvalue of what :math:`\kappa` multiplies, (n,), above 0.
        scale: :math:`\kappa`, (n, 1).
        pairs: a and b in turns, (n, 2k, l); 0 where a step taught a sample nothing.
    """

    hessian: Tensor
    largest: Tensor
    scale: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, hessian: Tensor, scale: Tensor) -> Self | None:
        """By H and the scales alone, None if H is 0."""
        largest = largest_eigenvalue_bound(hessian)
        if not largest > 0:
            return None
        pairs = hessian.new_empty(len(scale), 0, len(hessian))
        return cls(hessian, hessian.new_full((len(scale),), largest), scale, pairs)

    def rescaled(self, steps: Tensor, turned: Tensor, expected: Tensor) -> Self:
        """With scales by which B s is y, as seen from s: by one step (n, l) of each.

        Args:
            steps: s.
            turned: y.
            expected: B s by the scales there are.
        """
        scale = self.scale * (vecdot(turned, steps) / vecdot(expected, steps))[:, None]
        scale = torch.where(scale.isfinite(), scale, self.scale)
        return replace(self, scale=scale.clamp(LEAST_SCALE, MOST_SCALE))

    def stiffened(self, factor: float, where: Tensor) -> Self:
        """Multiplied by a factor for the samples ``where`` (n, 1) says so."""
        return replace(self, scale=torch.where(where, factor * self.scale, self.scale))

    def taught(self, steps: Tensor, turned: Tensor, expected: Tensor, may_learn: Tensor) -> Self:
        """By steps s, on which gradients turned by y in place of B s, where (n,) says so."""
        from sparse_lightning.solvers.compiled_pairs import with_pair  # takes long to import

        given = steps, turned, expected, self.scale, may_learn, LEAST_TURN
        pairs, added = with_pair(self.pairs, *given)
        return replace(self, largest=self.largest + added, pairs=pairs)

    def product(self, steps: Tensor) -> Tensor:
        """B s of each sample, (n, l)."""
        from sparse_lightning.solvers.compiled import gradients  # takes long to import

        return gradients(self._quadratic(torch.zeros_like(steps)), steps).mul_(self.scale)

    def minimum(
        self, codes: Tensor, gradient: Tensor, sparsity_weight: float, tolerance: float
    ) -> Tensor:
        """Where the quadratics at ``codes`` (n, l), with the l1 term, have their minima, (n, l).

        Up to a fixed-point residual of ``tolerance``, relative to the size of the code.
        """
        from sparse_lightning.solvers.compiled import descend, gradients

        drive = gradients(self._quadratic(gradient / self.scale), codes)
        quadratic = self._quadratic(drive, sparsity_weight / self.scale.squeeze(1))
        age = torch.arange(INNER_ITERATIONS, dtype=codes.dtype, device=codes.device)
        momenta = age / (age + 3)
        return descend(quadratic, codes, 1 / self.largest, momenta, tolerance, True).codes

    def _quadratic(self, drive: Tensor, sparsity_weight: float | Tensor = 0.0) -> Quadratic:
        return Quadratic(self.hessian, drive, sparsity_weight, None, self.pairs)

    def restrict(self, rows: Tensor) -> Self:
        """Those of the samples ``rows``."""
        parts = {name: getattr(self, name)[rows] for name in ("largest", "scale", "pairs")}
        return replace(self, **parts)
