r"""Leaps: steps of one quadratic that stands for the decoder of all samples.

After some learning most hidden units of a relu network are active for most samples. The network is
then nearly linear in the codes, and one matrix H, an average over the samples, tells how the
energy of each of them bends. From the codes z of a sample the next are

.. math::
    \arg\min_{z' \ge 0}\; \langle \nabla(z), z' - z \rangle
    + \tfrac{\kappa}{2} (z' - z)^\top H (z' - z) + \lambda \|z'\|_1 ,

a positive lasso, which the compiled loops solve in less time than the network takes for a gradient
(a proximal Newton step, Lee, Sun & Saunders 2014, with a Hessian that is shared). :math:`\kappa` is
the sample's own, a damping that is measured on the last leap s, by how the gradient turned
(Barzilai & Borwein 1988, with H in the place of the identity):

.. math::
    \kappa = \langle \nabla(z + s) - \nabla(z), s \rangle / \langle s, H s \rangle ,

within bounds, and at least twice what it was after a leap uphill, which is not taken. Unless the
first, the longest, does as the quadratic said for nearly all samples, none is taken: in a network
that is far from linear it would land in some other valley. A few leaps go most of the way; on the
kinks of the network, which no quadratic knows, other steps have to settle. Of several processes
that train one model, each decides for its own samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparse_lightning.smooth import Quadratic, largest_eigenvalue_bound

# Damping: at first, the least and the most that are believed, and how it rises after a leap uphill.
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING, RISE = 1.2, 0.5, 4.0, 2.0
# The first leap must lower the energy by what was promised up to this, relative, for this share.
FIRST_ERROR, FIRST_SHARE = 0.25, 0.9
# Leaps end with one that lowers the energy by less than this, relative.
WORTHWHILE = 2e-6
INNER_ITERATIONS, INNER_TOLERANCE = 100, 3e-5


class LeapedObjective(Protocol):
    """What a leap needs of an objective."""

    sparsity_weight: float

    def average_hessian(self, codes: Tensor) -> Tensor | None: ...

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Start:
    """Where other steps start from.

    Attributes:
        codes: (n, l).
        energies: of the codes, (n, 1) or (1, 1).
        gradient: at the codes, (n, l).
        taken: leaps up to here; each costs a gradient and counts as an iteration of all samples.
    """

    codes: Tensor
    energies: Tensor
    gradient: Tensor
    taken: int


def leap(objective: LeapedObjective, codes: Tensor, most: int) -> Start:
    """As many leaps as are worthwhile, at most ``most``; none where no one quadratic will do."""
    energies, gradient = objective.comparable_and_gradient(codes)
    hessian = objective.average_hessian(codes) if most > 0 else None
    start, taken = Start(codes, energies, gradient, 0), 0
    damping = torch.full_like(energies, FIRST_DAMPING)
    while taken < most and hessian is not None:
        if taken <= 1:
            largest = largest_eigenvalue_bound(hessian)
            if not largest > 0:
                break
        new = _lasso(objective, hessian, codes, gradient, damping, 1 / largest)
        way = new - codes
        bend = torch.linalg.vecdot(way @ hessian, way)[:, None]
        new_energies, new_gradient = objective.comparable_and_gradient(new)
        decrease = energies - new_energies
        taken += 1
        take = is_downhill = decrease >= 0
        if taken == 1:
            promised = _promised(objective, gradient, way, damping, bend)
            take = (decrease - promised).abs() <= FIRST_ERROR * promised
            if not take.double().mean() >= FIRST_SHARE:
                return start
        turned = torch.linalg.vecdot(new_gradient - gradient, way)[:, None]
        damping = _damped(damping, turned, bend, is_downhill)
        codes = torch.where(take, new, codes)
        gradient = torch.where(take, new_gradient, gradient)
        energies = torch.where(take, new_energies, energies)
        if not decrease.clamp_(min=0).sum() > WORTHWHILE * energies.sum().abs():
            break
        if taken == 1:
            # The units that are active at the start, which may be zero, say little of those here.
            # Dampings, measured with the old matrix, are no better for being measured with the new.
            hessian = objective.average_hessian(codes)
    return Start(codes, energies, gradient, taken)


def _promised(
    objective: LeapedObjective, gradient: Tensor, way: Tensor, damping: Tensor, bend: Tensor
) -> Tensor:
    """By how much the energy of the quadratic falls on the way, (n, 1)."""
    slope = torch.linalg.vecdot(gradient + objective.sparsity_weight, way)[:, None]
    return -torch.addcmul(slope, damping, bend, value=0.5)


def _damped(damping: Tensor, turned: Tensor, bend: Tensor, is_downhill: Tensor) -> Tensor:
    measured = turned / bend
    measured = torch.where(measured.isfinite(), measured, damping)
    measured = measured.clamp(LEAST_DAMPING, MOST_DAMPING)
    return torch.where(is_downhill, measured, torch.maximum(measured, RISE * damping))


def _lasso(
    objective: LeapedObjective,
    hessian: Tensor,
    codes: Tensor,
    gradient: Tensor,
    damping: Tensor,
    step: float,
) -> Tensor:
    """The codes that a leap leads to; all is divided by the sample's damping."""
    from sparse_lightning.solvers.compiled import descend  # takes long to import

    drive = torch.addcdiv(codes @ hessian, gradient, damping, value=-1)
    quadratic = Quadratic(hessian, drive, objective.sparsity_weight / damping.squeeze(1), None)
    age = torch.arange(INNER_ITERATIONS, dtype=codes.dtype, device=codes.device)
    return descend(quadratic, codes, step, age / (age + 3), INNER_TOLERANCE, True).codes
