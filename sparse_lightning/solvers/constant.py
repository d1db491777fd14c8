r"""Proximal gradient with a constant step: ISTA and FISTA, as in the paper.

With a step size :math:`\eta`, from :math:`a^0 = z^0` and :math:`t = 1`,

.. math::
    z_{k} &= \mathrm{shrink}\big(a - \eta \nabla(a),\, \eta\big), \qquad
    t_{k+1} = \tfrac12 \big(1 + \sqrt{1 + 4 t_k^2}\big), \\
    a &= z_{k} + \tfrac{t_k - 1}{t_{k+1}} (z_{k} - z_{k-1}),

which is FISTA (Beck & Teboulle 2009); ISTA takes :math:`a = z_k`. A sample has converged at the
first iteration with :math:`\|z_k - z_{k-1}\| < \mathrm{tolerance} \cdot \|z_{k-1}\|`, or whose
code is zero and stays zero. It then keeps that code and leaves the batch, so that later
iterations are spent on the others; an objective that couples samples goes on counting it
(`Objective.restrict`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparse_lightning.errors import require_positive
from sparse_lightning.smooth import Quadratic
from sparse_lightning.solvers.solution import ShrinkingBatch, Solution, require_limits


class ProximalObjective(Protocol):
    """A smooth function plus one with a simple proximal step, over a batch of codes (n, l)."""

    quadratic: Quadratic | None

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor: ...

    def shrink(self, codes: Tensor, step_size: float, out: Tensor | None = None) -> Tensor: ...

    def restrict(self, rows: Tensor, held_codes: Tensor) -> ProximalObjective: ...

    def agree(self, holds: bool) -> bool: ...


@dataclass(frozen=True)
class ISTA:
    r"""Iterative shrinkage with a constant step.

    Args:
        step_size: :math:`\eta > 0`, stable up to about 2 over the gradient's Lipschitz constant.
        max_iterations: upper limit, at least 1.
        tolerance: relative change of a sample's code at which it has converged. 0 never stops
            early, so that every sample takes ``max_iterations``.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    step_size: float
    max_iterations: int = 200
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("solver.step_size", self.step_size)
        require_limits(self.tolerance, self.max_iterations)

    @property
    def remedy(self) -> str:
        """What to do where inference diverged."""
        return (
            f"solver.step_size={self.step_size:g} is too large for this decoder, take a smaller "
            "one, or solver=adaptive, which follows the decoder"
        )

    def _momenta(self) -> list[float]:
        """One for each iteration."""
        return [0.0] * self.max_iterations

    @torch.no_grad()
    def __call__(self, objective: ProximalObjective, initial_codes: Tensor) -> Solution:
        """Minimise ``objective`` from ``initial_codes`` (n, l), which are left as they are."""
        if objective.quadratic is not None:
            from sparse_lightning.solvers.compiled import descend  # takes long to import

            momenta = torch.tensor(self._momenta(), dtype=torch.float64)
            return descend(
                objective.quadratic, initial_codes, self.step_size, momenta, self.tolerance, False
            )
        batch = ShrinkingBatch(initial_codes, self.max_iterations)
        codes, point, spare = (initial_codes.clone() for _ in range(3))
        for iteration, momentum in enumerate(self._momenta(), start=1):
            new = objective.gradient(point, out=spare)
            torch.sub(point, new, alpha=self.step_size, out=new)
            new = objective.shrink(new, self.step_size, out=new)
            if self.tolerance > 0:
                batch.undo_held(new, codes)
                batch.hold(self._has_converged(new, codes), iteration, new, codes)
                if objective.agree(batch.is_finished):
                    codes = new
                    break
                if batch.is_worth_compacting and not batch.is_finished:
                    kept, dropped = batch.compact(new)
                    objective = objective.restrict(kept, new[dropped])
                    new, codes, point = new[kept], codes[kept], point[kept]
            torch.lerp(codes, new, 1 + momentum, out=point)
            codes, spare = new, codes
        return batch.solution(codes)

    def _has_converged(self, new: Tensor, old: Tensor) -> Tensor:
        """Mask of the samples that have converged; one that is held has a change of 0."""
        change = torch.linalg.vector_norm(new - old, dim=1)
        # No change at all is convergence too: a zero code has a relative change of 0/0.
        return (change < self.tolerance * torch.linalg.vector_norm(old, dim=1)) | (change == 0)


@dataclass(frozen=True)
class FISTA(ISTA):
    """Accelerated iterative shrinkage with a constant step; arguments as for `ISTA`."""

    def _momenta(self) -> list[float]:
        momenta, t = [], 1.0
        for _ in range(self.max_iterations):
            t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
            momenta.append((t - 1) / t_new)
            t = t_new
        return momenta
