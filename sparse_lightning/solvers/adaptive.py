r"""Proximal gradient whose step and momentum follow the objective.

The loop is that of `sparse_lightning.solvers.proximal_gradient`, with

- a step of :math:`1/L` for each sample. Where the data fit knows a bound on its curvature (a linear
  decoder), L is that bound. Elsewhere L is measured between successive points a and a', as
  :math:`\langle \nabla(a') - \nabla(a), a' - a\rangle / \|a' - a\|^2`, the inverse of the long step
  of Barzilai & Borwein ("Two-point step size gradient methods", 1988). It rises at once, by a
  factor of 2 at most. It falls by at most 10 % an iteration, until momentum first restarts, and
  never after Newton steps: later a sample is near its minimum, where the kinks of relu networks
  look like curvature that grows as steps shrink, and smaller steps settle on a kink (our own rule).
- momentum that restarts where it points uphill, the gradient test of O'Donoghue & Candès
  ("Adaptive restart for accelerated gradient schemes", 2015), for each sample.
- one convergence test for the whole batch where the hinge couples its samples: a sample that rests
  may have to move again while others move.
- a few proximal Newton steps first, where one Hessian nearly holds for all samples
  (`sparse_lightning.solvers.proximal_newton`).

Codes of higher energy than the initial ones are never returned. Initial codes that the penalty does
not allow, such as negative ones, are projected first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sparse_lightning.registry import register
from sparse_lightning.solvers import proximal_newton
from sparse_lightning.solvers.base import Solution, SolvableObjective, no_higher, require_limits
from sparse_lightning.solvers.proximal_gradient import ProximalGradient, State, fista_momenta

LARGEST_RISE, FALL = 2.0, 0.9


@register
@dataclass(frozen=True)
class Adaptive(ProximalGradient):
    """Accelerated proximal gradient with steps by curvature and adaptive restart.

    Args:
        max_iterations: upper limit, at least 1.
        tolerance: relative change of a sample's code at which it has converged. 0 never stops
            early.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    max_iterations: int = 200
    tolerance: float = 3e-4

    restarts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_limits(self.tolerance, self.max_iterations)

    @property
    def strain_hint(self) -> str:
        return f"more than solver.max_iterations={self.max_iterations}, or a smaller decoder"

    @torch.no_grad()
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        start, initial_codes = None, objective.prox(initial_codes, 0.0)
        if proximal_newton.applies(objective, initial_codes):
            start = proximal_newton.descend(objective, initial_codes, self.max_iterations // 2)
        if start is None:
            solution = super().__call__(objective, initial_codes)
            return no_higher(objective, solution, initial_codes, objective.energies(initial_codes))
        state = replace(State.at(start.codes), iterations=start.steps, curvature=start.curvature)
        solution = self.descend(objective, state, None)
        return no_higher(objective, solution, start.codes, start.energies)

    def with_measured_steps(self, objective: SolvableObjective, codes: Tensor) -> Solution:
        # Where no sample uses a component the hinge looks like a wall, from which L falls slowly.
        curvature = curvature_along_gradient(objective.without_hinge(), codes)
        if not objective.is_separable:
            # A relu network without an active unit has no curvature, and the hinge moves its codes.
            is_known = curvature > torch.finfo(codes.dtype).eps
            curvature = torch.where(is_known, curvature, curvature.max())
        return self.descend(objective, replace(State.at(codes), curvature=curvature), None)

    def constant_step(self, objective: SolvableObjective, codes: Tensor) -> float | None:
        bound = objective.lipschitz(codes)
        # A function without any curvature may be stepped over as far as one likes.
        return None if bound is None else 1 / max(bound, torch.finfo(codes.dtype).tiny ** 0.5)

    def updated_curvature(self, state: State, gradient: Tensor) -> Tensor:
        known, measured = state.curvature, state.measured_curvature(gradient, 0.0)
        has_restarted = state.age < state.iterations
        lowest = torch.where(has_restarted, known, FALL * known)
        return torch.minimum(torch.maximum(measured, lowest), LARGEST_RISE * known)

    def step_size_at(self, curvature: Tensor) -> Tensor:
        return 1 / curvature

    def momenta(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return fista_momenta(self.max_iterations, dtype, device)


def curvature_along_gradient(objective: SolvableObjective, codes: Tensor) -> Tensor:
    r"""A first guess of L: the curvature of each sample along its gradient, (n, 1).

    A sample whose gradient is 0 is looked at along (1, ..., 1).
    """
    gradient = objective.gradient(codes)
    is_still = (gradient == 0).all(-1, keepdim=True)
    direction = torch.where(is_still, 1.0, gradient)
    length = vector_norm(direction, dim=-1, keepdim=True)
    spacing = torch.finfo(codes.dtype).eps ** 0.5 * (1 + vector_norm(codes, dim=-1, keepdim=True))
    # The squares of a tiny gradient may vanish.
    move = torch.where(length > 0, spacing / length, 0.0) * direction
    turned = objective.gradient(codes + move) - gradient
    curvature = vector_norm(turned, dim=-1, keepdim=True) / spacing
    return curvature.clamp_min(torch.finfo(codes.dtype).eps)
