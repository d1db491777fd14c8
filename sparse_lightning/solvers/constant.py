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
from functools import cache

import torch
from torch import Tensor

from sparse_lightning.errors import require_positive
from sparse_lightning.solvers.descent import Descent, ProximalObjective
from sparse_lightning.solvers.solution import Solution, require_limits


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

    def _momenta(self) -> Tensor:
        """One for each iteration, in float64."""
        return torch.zeros(self.max_iterations, dtype=torch.float64, device="cpu")

    @property
    def divergence_hint(self) -> str:
        """What to do where inference diverged, or is about to."""
        return self.remedy

    @torch.no_grad()
    def __call__(self, objective: ProximalObjective, initial_codes: Tensor) -> Solution:
        """Minimise ``objective`` from ``initial_codes`` (n, l), which are left as they are."""
        momenta = self._momenta()
        if objective.quadratic is None:
            is_for_loops = initial_codes.device.type == "cpu"
            kind = CompiledDescent if is_for_loops else ConstantDescent
            return kind(self, objective, initial_codes, momenta).run()
        from sparse_lightning.solvers.compiled import descend  # takes long to import

        return descend(
            objective.quadratic, initial_codes, self.step_size, momenta, self.tolerance, False
        )


@dataclass(frozen=True)
class FISTA(ISTA):
    """Accelerated iterative shrinkage with a constant step; arguments as for `ISTA`."""

    def _momenta(self) -> Tensor:
        return fista_momenta(self.max_iterations)


@cache
def fista_momenta(count: int) -> Tensor:
    r"""The first :math:`(t_k - 1) / t_{k+1}`, in float64; not to be written to."""
    momenta, t = [], 1.0
    for _ in range(count):
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        momenta.append((t - 1) / t_new)
        t = t_new
    with torch.inference_mode(False):
        return torch.tensor(momenta, dtype=torch.float64, device="cpu")


class ConstantDescent(Descent):
    """The iterations of `ISTA` and `FISTA` over torch's operations."""

    def __init__(
        self, solver: ISTA, objective: ProximalObjective, initial_codes: Tensor, momenta: Tensor
    ) -> None:
        super().__init__(objective, initial_codes, solver.max_iterations, solver.tolerance)
        self.step_size = solver.step_size
        # To be looked up by an iteration's number, which is 1 at first.
        self.reach = torch.cat((momenta.new_zeros(1), momenta)).add_(1).to(initial_codes)

    def parts(self) -> list[object]:
        return [self]

    def advance(self, iteration: int) -> None:
        new = self.objective.gradient(self.point, out=self.spare)
        torch.sub(self.point, new, alpha=self.step_size, out=new)
        new = self.objective.shrink(new, self.step_size, out=new)
        if self.tolerance > 0:
            self.keep_held(new)
            self.hold(self._has_converged(new), new)
        reach = self.reach.index_select(0, self.iteration)
        torch.lerp(self.codes, new, reach, out=self.point)
        self.codes, self.spare = new, self.codes

    def _has_converged(self, new: Tensor) -> Tensor:
        """Mask of the samples that have converged; one that is held has a change of 0."""
        change = torch.linalg.vector_norm(new - self.codes, dim=1)
        # No change at all is convergence too: a zero code has a relative change of 0/0.
        size = torch.linalg.vector_norm(self.codes, dim=1)
        return (change < self.tolerance * size) | (change == 0)


class CompiledDescent(ConstantDescent):
    """The same, on the CPU in one compiled pass between two gradients."""

    def __init__(
        self, solver: ISTA, objective: ProximalObjective, initial_codes: Tensor, momenta: Tensor
    ) -> None:
        super().__init__(solver, objective, initial_codes, momenta)
        self.momenta = momenta.to(initial_codes.dtype).numpy()
        size = solver.step_size
        numbers = size, size * objective.sparsity_weight, solver.tolerance**2
        self.numbers = initial_codes.new_tensor(numbers).numpy()

    def advance(self, iteration: int) -> None:
        from sparse_lightning.solvers.compiled_constant import step  # takes long to import

        new = step(self, self.objective.gradient(self.point, out=self.spare), iteration)
        self.codes, self.spare = new, self.codes
