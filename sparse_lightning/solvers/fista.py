r"""ISTA and FISTA with the paper's constant step, safeguarded.

The loop is that of `sparse_lightning.solvers.proximal_gradient`.

A constant step is stable while :math:`\eta L < 4/3` with full momentum, and while
:math:`\eta L < 2` without, L being the largest curvature (the eigenvalue of the iteration leaves
the unit circle there). A decoder that is free to grow passes that bound in the course of training.
So the step is safeguarded:

- Where an upper bound of L is known (of a linear decoder), it either shows that the constant step
  is stable, or the step is 1 over that bound.
- Elsewhere each sample's curvature is measured between successive points, at no further gradient:
  :math:`L = \langle \nabla(a') - \nabla(a), a' - a\rangle / \|a' - a\|^2`. A sample whose L shows
  that the step is not stable goes on with a step of :math:`1/L`.
- A first step that is many times too long throws a sample far away. Where a few samples of a batch
  show that, FISTA leaves the batch to `Adaptive`, whose first step is short enough. The choice is
  made for the whole batch: there a sample's code may depend on its batch. Processes that share a
  batch choose alike with the hinge, and each for its own part without it.

Where none of this happens nothing changes, unless some sample does not converge: then the samples
whose energy rose keep their initial codes; with the hinge, all do or none. ``safeguard=False`` is
the literal algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_lightning.errors import require_positive
from sparse_lightning.registry import register
from sparse_lightning.solvers.adaptive import Adaptive, curvature_along_gradient
from sparse_lightning.solvers.base import Solution, SolvableObjective, no_higher, require_limits
from sparse_lightning.solvers.proximal_gradient import ProximalGradient, State, fista_momenta

# Step size times curvature, on average over so many samples, from which on `Adaptive` is faster.
FAR_FROM_STABLE, FEW_SAMPLES = 8.0, 16


@register
@dataclass(frozen=True)
class ISTA(ProximalGradient):
    r"""Iterative shrinkage with the paper's constant step, safeguarded.

    Args:
        step_size: :math:`\eta > 0`.
        max_iterations: upper limit, at least 1.
        tolerance: relative change of a sample's code at which it has converged. 0 never stops
            early, so that every sample takes ``max_iterations``.
        safeguard: whether a sample takes a step of 1/L where the constant step is not known to be
            stable; FISTA leaves a batch that is far from stable to `Adaptive`. If some sample has
            not converged, each sample whose energy ended higher than it began also keeps its
            initial code.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    step_size: float
    max_iterations: int = 200
    tolerance: float = 1e-3
    safeguard: bool = True

    # The largest step size times curvature at which the iteration is stable.
    STABLE: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        require_positive("solver.step_size", self.step_size)
        require_limits(self.tolerance, self.max_iterations)

    @property
    def divergence_hint(self) -> str:
        if self.safeguard:
            return super().divergence_hint
        return (
            f"solver.step_size={self.step_size:g} is too large for this decoder: set "
            "solver.safeguard=true, take a smaller one, or take solver=adaptive"
        )

    @property
    def strain_hint(self) -> str:
        if not self.safeguard:
            return self.divergence_hint
        return f"solver=adaptive, or more than solver.max_iterations={self.max_iterations}"

    @torch.no_grad()
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        initial_codes = objective.prox(initial_codes, 0.0)
        solution = super().__call__(objective, initial_codes)
        if not self.safeguard or objective.agree(
            bool(solution.converged.all()), initial_codes.device
        ):
            return solution
        energies = objective.energies(initial_codes)
        return no_higher(objective, solution, initial_codes, energies)

    def constant_step(self, objective: SolvableObjective, codes: Tensor) -> float | None:
        stable = self.STABLE / self.step_size
        bound = objective.lipschitz(codes, enough=stable) if self.safeguard else 0.0
        if bound is None:
            return None
        return self.step_size if bound <= stable else 1 / bound

    def updated_curvature(self, state: State, gradient: Tensor) -> Tensor:
        return torch.maximum(state.curvature, state.measured_curvature(gradient, self.tolerance))

    def step_size_at(self, curvature: Tensor) -> Tensor:
        is_stable = self.step_size * curvature <= self.STABLE
        return torch.where(is_stable, self.step_size, 1 / curvature)

    def momenta(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros(1, dtype=dtype, device=device).expand(self.max_iterations)


@register
@dataclass(frozen=True)
class FISTA(ISTA):
    """Accelerated iterative shrinkage with the paper's step, safeguarded; arguments as `ISTA`.

    Example:
        >>> from sparse_lightning import Energy, LinearDecoder
        >>> decoder = LinearDecoder(code_dim=2, input_dim=2)
        >>> decoder.weight.data = torch.eye(2)
        >>> objective = Energy(sparsity_weight=0.1).bind(decoder, torch.tensor([[1.0, 0.0]]))
        >>> FISTA(step_size=0.5, tolerance=1e-6)(objective, torch.zeros(1, 2)).codes
        tensor([[0.9000, 0.0000]])
    """

    STABLE: ClassVar[float] = 4 / 3

    def with_measured_steps(self, objective: SolvableObjective, codes: Tensor) -> Solution:
        # A subclass has a loop of its own.
        if type(self) is FISTA and self._is_far_from_stable(objective, codes):
            return Adaptive(self.max_iterations, self.tolerance)(objective, codes)
        return super().with_measured_steps(objective, codes)

    def _is_far_from_stable(self, objective: SolvableObjective, codes: Tensor) -> bool:
        """Judged by the curvature of a few samples along their gradients."""
        few = codes[:FEW_SAMPLES]
        rows = torch.arange(len(few), device=codes.device)
        # A component that no sample uses would make the hinge look as steep as a wall.
        smooth = objective.without_hinge().restrict(rows, codes[FEW_SAMPLES:])
        curvature = curvature_along_gradient(smooth, few)
        sums = torch.stack([curvature.sum(), curvature.new_tensor(len(few))])
        total, count = objective.total(sums)
        return bool(self.step_size * total > FAR_FROM_STABLE * count)

    def momenta(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return fista_momenta(self.max_iterations, dtype, device)
