r"""Proximal Newton steps with one Hessian for all samples, for decoders with hidden layers.

After some learning most hidden units of a relu network are active for most samples. The network is
then nearly linear in the codes, and one matrix H, an average over the samples, tells how the energy
of each sample bends. From the codes z of a sample the next are

.. math::
    \arg\min_{z' \ge 0}\; \langle \nabla(z), z' - z \rangle
    + \tfrac{\kappa}{2} (z' - z)^\top H\, (z' - z) + \lambda \|z'\|_1 ,

a positive lasso (Lee, Sun & Saunders, "Proximal Newton-type methods for minimizing composite
functions", 2014), which `sparse_lightning.solvers.gram_numba` solves in less time than the network
takes for a gradient. Each sample's scale :math:`\kappa` follows the curvature along its last step.
A step uphill is not taken, and :math:`\kappa` grows. A sample whose energy hardly changes any more
takes no further steps: on the kinks of the network, which no quadratic knows, the iterations of
`sparse_lightning.solvers.adaptive` have to settle.

Unless energies fall along the first step as H says for nearly all samples, none is taken (our own
rule): in a network that is far from linear the step would land in another valley.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vecdot

from sparse_lightning.datafits import largest_eigenvalue_bound
from sparse_lightning.solvers import gram_numba
from sparse_lightning.solvers.base import has_known_terms
from sparse_lightning.solvers.proximal_gradient import fista_momenta

# The scale of the first step, the factor after a step uphill, and the range of what is measured.
FIRST_SCALE, RISE, SCALES = 1.2, 1.5, (0.5, 16.0)
# Energies must fall on the first step as H says, up to this, relative, for this share of samples.
FALL_ERROR, FIRST_SHARE = 0.35, 0.9
# The steps of a sample end with one that changes its energy by less than this, relative.
WORTHWHILE = 3e-7
# Steps of the batch end where fewer samples than this share would take one.
FEW = 0.05
# How well the lasso of each step is solved: no better than its quadratic is known. The last number
# is that of all further steps.
LASSO_TOLERANCES, LASSO_ITERATIONS = (1e-3, 1e-4, 3e-5), 100


def applies(objective: Any, codes: Tensor) -> bool:
    """Whether these steps can be taken: for separable energies with an l1 term, on the CPU."""
    return (
        gram_numba.can_run(codes.device)
        and len(codes) > 0
        and has_known_terms(objective)
        and objective.is_separable
    )


@dataclass
class Samples:
    """Samples and how far they have come.

    Attributes:
        place: of each sample, its position in the batch.
        codes, gradient: (n, l).
        energies, scale: (n, 1).
        steps: (n, 1), taken by each sample.
    """

    place: Tensor
    codes: Tensor
    gradient: Tensor
    energies: Tensor
    scale: Tensor
    steps: Tensor

    def restrict(self, rows: Tensor) -> Samples:
        return Samples(**{name: value[rows] for name, value in vars(self).items()})

    def store(self, part: Samples) -> None:
        """Write what became of some samples to their places."""
        for name in ("codes", "energies", "scale", "steps"):
            getattr(self, name)[part.place] = getattr(part, name)


@dataclass(frozen=True)
class Descent:
    """Where the steps have led to.

    Attributes:
        codes: (n, l).
        energies: of the codes, (n, 1).
        steps: that each sample took, (n, 1).
        curvature: L of each sample as H and its scale have it, (n, 1).
    """

    codes: Tensor
    energies: Tensor
    steps: Tensor
    curvature: Tensor


def descend(objective: Any, initial_codes: Tensor, most: int) -> Descent | None:
    """As many steps as are worthwhile, at most ``most``; None where one Hessian does not do."""
    hessian = objective.average_hessian(initial_codes)
    if hessian is None or most < 1:
        return None
    lipschitz = largest_eigenvalue_bound(hessian)
    if lipschitz == 0:  # No hidden unit is active for any sample.
        return None
    energies, gradient = objective.energies_and_gradient(initial_codes)
    scale, place = torch.full_like(energies, FIRST_SCALE), torch.arange(len(initial_codes))
    none = torch.zeros_like(place)[:, None]
    samples = Samples(place, initial_codes.clone(), gradient, energies, scale, none)
    found = samples.restrict(place)
    for taken in range(most):
        tolerance = LASSO_TOLERANCES[min(taken, len(LASSO_TOLERANCES) - 1)]
        new = lasso(objective, samples, hessian, lipschitz, tolerance)
        fall, promised = advance(objective, samples, hessian, new)
        least = WORTHWHILE * samples.energies.abs()
        if taken == 0 and not is_as_promised(fall, promised, least):
            return None
        found.store(samples)
        rows = (fall.abs() > least).squeeze(1).nonzero().squeeze(1)
        if len(rows) <= FEW * len(found.codes):
            break
        if len(rows) < len(samples.codes):
            objective, samples = objective.restrict(rows, samples.codes[:0]), samples.restrict(rows)
    return Descent(found.codes, found.energies, found.steps, found.scale * lipschitz)


def advance(
    objective: Any, samples: Samples, hessian: Tensor, new: Tensor
) -> tuple[Tensor, Tensor]:
    """Go to the codes ``new`` where that is downhill, and measure the scales.

    Returns:
        By how much each energy fell, and by how much it was to fall, (n, 1) each.
    """
    step = new - samples.codes
    energies, gradient = objective.energies_and_gradient(new)
    bend = samples.scale * (step @ hessian)
    slope = vecdot(samples.gradient + objective.sparsity_weight, step)[:, None]
    curvature = vecdot(bend, step)[:, None]
    fall, promised = samples.energies - energies, -(slope + curvature / 2)
    is_downhill = fall >= 0
    turn = vecdot(gradient - samples.gradient, step)[:, None] / curvature
    scale = torch.where(turn.isfinite(), samples.scale * turn, samples.scale)
    scale = torch.where(is_downhill, scale, RISE * torch.maximum(scale, samples.scale))
    samples.scale = scale.clamp(*SCALES)
    samples.codes = torch.where(is_downhill, new, samples.codes)
    samples.gradient = torch.where(is_downhill, gradient, samples.gradient)
    samples.energies = torch.where(is_downhill, energies, samples.energies)
    samples.steps = samples.steps + 1
    return fall, promised


def is_as_promised(fall: Tensor, promised: Tensor, least: Tensor) -> bool:
    """Whether the energies of nearly all samples fell as their quadratics say, but for rounding."""
    is_right = (fall - promised).abs() <= FALL_ERROR * promised + least
    return bool(is_right.double().mean() >= FIRST_SHARE)


def lasso(
    objective: Any, samples: Samples, hessian: Tensor, lipschitz: float, tolerance: float
) -> Tensor:
    """Where the quadratics of the samples, with the l1 term, have their minima, (n, l)."""
    # All is divided by the scale, which leaves the minimum where it is.
    linear = samples.codes @ hessian - samples.gradient / samples.scale
    steps = samples.scale.new_full((len(linear),), 1 / lipschitz)
    thresholds = steps * (objective.sparsity_weight / samples.scale.squeeze(1))
    momenta = fista_momenta(LASSO_ITERATIONS, torch.float64, linear.device).numpy()
    return gram_numba.minimise(
        hessian, linear, samples.codes, steps, thresholds, tolerance, momenta, restarts=True
    ).codes
