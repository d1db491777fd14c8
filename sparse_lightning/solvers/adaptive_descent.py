"""The iterations of `sparse_lightning.solvers.adaptive`, over torch's operations or compiled."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sparse_lightning.solvers.descent import Descent
from sparse_lightning.solvers.pace import CurvedObjective, MeasuredPace, Pace, pace_of
from sparse_lightning.solvers.start import Start

CHECK_EVERY = 10
# A sample settles where a step beside its code is up to so many tolerances, but not above this.
SETTLING_TOLERANCES, LARGEST_SETTLING = 30, 1e-2


class Limits(Protocol):
    """When to stop; see `sparse_lightning.solvers.adaptive.Adaptive`."""

    max_iterations: int
    tolerance: float


def descent_of(
    objective: CurvedObjective, start: Start, taken: int, limits: Limits
) -> AdaptiveDescent:
    """From ``start``, which it took ``taken`` iterations to get to."""
    bend = start.curvature
    if bend is None:
        bend = objective.curvature(start.codes)
    pace = pace_of(objective, start.codes, start.energies, bend, limits.max_iterations)
    is_compiled = (
        objective.is_separable
        and isinstance(pace, MeasuredPace)
        and start.codes.device.type == "cpu"
    )
    kind = CompiledDescent if is_compiled else AdaptiveDescent
    return kind(objective, start, taken, limits, pace)


class AdaptiveDescent(Descent):
    """Over torch's operations, for any objective on any device."""

    def __init__(
        self, objective: CurvedObjective, start: Start, taken: int, limits: Limits, pace: Pace
    ) -> None:
        super().__init__(objective, start.codes, limits.max_iterations, limits.tolerance)
        self.start_at(taken)
        can_settle = objective.is_separable and isinstance(pace, MeasuredPace)
        self.settlings = self.make_settlings() if can_settle else None
        self.gradient, self.has_gradient = start.gradient, True
        self.pace = pace

    def parts(self) -> list[object]:
        return [self, self.pace]

    def prepared(self) -> None:
        self.pace.compare_by(self.objective)

    def advance(self, iteration: int) -> None:
        if not self.has_gradient:
            self.gradient = self.objective.gradient(self.point, out=self.gradient)
        self.has_gradient = False
        new, risen = self._step(), None
        if iteration % CHECK_EVERY == 0:
            risen = self._put_back(new)
        self._carry_on(new, risen)
        self.codes, self.spare = new, self.codes

    def _step(self) -> Tensor:
        """One proximal step from the point, to the new codes."""
        pace = self.pace
        pace.see(self.point, self.gradient)
        new = pace.descend(self.point, self.gradient, self.spare)
        new = self.objective.shrink(new, pace.step, out=new)
        self.keep_held(new)
        return new

    def _put_back(self, new: Tensor) -> Tensor | None:
        """Go back to the best codes where the energy has risen, (n, 1); None: nowhere."""
        risen = self.pace.risen(self.objective, new, self.held)
        if risen is not None:
            for tensor in (new, self.codes, self.point):
                torch.where(risen, self.pace.best, tensor, out=tensor)
        return risen

    def _carry_on(self, new: Tensor, risen: Tensor | None) -> None:
        """Hold what has converged, and extrapolate the rest from the new codes."""
        pace = self.pace
        correction = torch.sub(new, self.point, out=self.gradient)
        if self.tolerance > 0:
            done = self._has_converged(new, correction)
            if risen is not None:
                # A sample that was put back has a correction of 0 as well.
                done = done & ~risen.squeeze(1)
            self.hold(done, new)
        change = torch.sub(new, self.codes, out=self.codes)
        momentum = pace.momentum(new, correction, change, self.settling())
        torch.addcmul(new, change, momentum, out=self.point)

    def make_settlings(self) -> Tensor:
        """At each iteration what `Pace.momentum` asks for, (max_iterations + 1,)."""
        size = min(SETTLING_TOLERANCES * self.tolerance, LARGEST_SETTLING)
        settlings = self.codes.new_full((self.max_iterations + 1,), size**2)
        half = (self.max_iterations + self.first) // 2
        settlings[half + 1 :] = math.inf
        return settlings

    def settling(self) -> Tensor | None:
        """The one of this iteration.

        None where no sample settles: those that are coupled, which do not end one by one, and all
        where the curvature is known.
        """
        return None if self.settlings is None else self.settlings[self.iteration]

    def _has_converged(self, new: Tensor, correction: Tensor) -> Tensor:
        """Mask of the samples at a fixed point; one that is held has a correction of 0.

        Coupled samples are at a fixed point together: one that rests while others move may have
        to move on.
        """
        if self.objective.is_separable:
            residual, size = vector_norm(correction, dim=1), vector_norm(new, dim=1)
            return residual <= self.tolerance * size
        squares = torch.stack([vector_norm(correction), vector_norm(new)]).square()
        residual, size = self.objective.total(squares).sqrt()
        return (residual <= self.tolerance * size).repeat(len(new))

    def restrict(self, rows: Tensor) -> None:
        super().restrict(rows)
        self.gradient = self.gradient[rows]
        self.pace.restrict(rows)


class CompiledDescent(AdaptiveDescent):
    """The same in two compiled passes over samples that are not coupled, on the CPU."""

    pace: MeasuredPace

    def _step(self) -> Tensor:
        from sparse_lightning.solvers.compiled_steps import step_down  # takes long to import

        return step_down(self)

    def _carry_on(self, new: Tensor, risen: Tensor | None) -> None:
        from sparse_lightning.solvers.compiled_steps import carry_on

        carry_on(self, new, risen)
