r"""A solver of your own: the locally competitive algorithm.

Rozell, Johnson, Baraniuk & Olshausen, "Sparse Coding via Thresholding and Local Competition in
Neural Circuits", Neural Computation 2008. Each component has a potential u that is driven by the
input, leaks, and is inhibited by the active components a that share its drive. With f all terms of
the energy but the penalty R, and a step size η,

.. math:: \tau \dot u = -u + a - \eta \nabla f(a), \qquad a = \mathrm{prox}_{\eta\lambda R}(u) .

For a linear decoder that is the paper's equation, with drive :math:`W^\top x` and inhibition
:math:`W^\top W - I`. Euler's method takes steps of a fraction r of τ; with r = 1 it is ISTA. Where
u rests, a minimises the energy.

A solver knows nothing but the objective: its gradient and its proximal step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_lightning import Solution, register
from sparse_lightning.errors import SettingError, require_positive
from sparse_lightning.solvers.base import SolvableObjective, Solver, require_limits


@register
@dataclass(frozen=True)
class LCA(Solver):
    """Potentials that leak and compete.

    Args:
        step_size: η, below 2 over the gradient's Lipschitz constant.
        rate: r, a time step over τ, above 0 and at most 1.
        max_iterations: at most so many time steps.
        tolerance: a sample has converged when its potentials move by less than this fraction of
            their norm in τ.
    """

    step_size: float
    rate: float = 0.2
    max_iterations: int = 500
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("solver.step_size", self.step_size)
        require_limits(self.tolerance, self.max_iterations)
        if not 0 < self.rate <= 1:
            raise SettingError(f"solver.rate={self.rate} must be above 0 and at most 1.")

    @torch.no_grad()
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        potential, codes = initial_codes.clone(), initial_codes.clone()
        iterations = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
        converged = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
        for _ in range(self.max_iterations):
            towards = codes - self.step_size * objective.gradient(codes) - potential
            towards = torch.where(converged[:, None], 0.0, towards)
            iterations = iterations + ~converged
            potential = potential + self.rate * towards
            codes = torch.where(
                converged[:, None], codes, objective.prox(potential, self.step_size)
            )
            moved, size = (torch.linalg.vector_norm(t, dim=-1) for t in (towards, potential))
            converged = converged | (moved < self.tolerance * size) | (moved == 0)
            # Processes that share a batch stop together.
            if objective.agree(bool(converged.all()), codes.device):
                break
        return Solution(codes, iterations, converged)
