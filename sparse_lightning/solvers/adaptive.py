r"""Proximal gradient whose step follows the curvature of the objective.

FISTA's step must be below two over the largest curvature :math:`L`, and is best at about
:math:`1/L`; but :math:`L` differs between decoders, grows while a decoder learns, and with hidden
layers differs between samples. Here the step is :math:`1/L`:

- where the objective knows a bound (a quadratic), it is that;
- elsewhere :math:`L` is measured between successive points,
  :math:`\langle \nabla(a') - \nabla(a), a' - a\rangle / \|a' - a\|^2`, for each sample where the
  objective separates, for the batch where it does not. It rises at once, by a factor of 2 at
  most. It falls slowly, and only until momentum first overshoots: from then on the samples are
  near their minima, where relu networks have kinks, which look like curvature that grows as
  steps shrink. Smaller steps are then the way to settle on a kink.

Momentum is FISTA's, :math:`k / (k + 3)` after k iterations. Where it points uphill (the gradient
test of O'Donoghue & Candès 2015) a sample stops and k is halved: where a problem is
ill-conditioned, starting from zero would lose more speed than the overshoot calls for. It is never
above what is best for a function that bends upwards by :math:`\mu` at least,
:math:`(1 - \sqrt{\mu/L}) / (1 + \sqrt{\mu/L})`.

A sample has converged when a step of :math:`1/L` from an extrapolated point moves it by no more
than the tolerance, :math:`\|z_k - a\| \le \mathrm{tolerance} \cdot \|z_k\|`: that is the residual
of the fixed-point equation, whatever the step size. Coupled samples converge together. Where the
curvature is measured, the energy is looked at now and then, and where it has risen the search goes
back to the best codes with a smaller step. Codes of higher energy than the initial ones are never
returned.

Two things come before. Where the smooth function is quadratic and on the CPU, compiled loops do
all of this (`sparse_lightning.solvers.compiled`); and where a relu network is nearly linear, a few
steps of one quadratic for all samples go most of the way (`sparse_lightning.solvers.leaps`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sparse_lightning.solvers.descent import Descent, ProximalObjective
from sparse_lightning.solvers.leaps import Start, leap
from sparse_lightning.solvers.solution import Solution, require_limits

LARGEST_RISE, FALL, RISE_AT_RESTART = 2.0, 0.9, 1.15
CHECK_EVERY = 10


class Bend(Protocol):
    """See `sparse_lightning.energy.Curvature`."""

    lower: float
    upper: float
    is_bound: bool


class CurvedObjective(ProximalObjective, Protocol):
    """An objective that knows how far it bends, and can compare codes."""

    is_separable: bool

    sparsity_weight: float

    def curvature(self, codes: Tensor) -> Bend: ...

    def average_hessian(self, codes: Tensor) -> Tensor | None: ...

    def comparable(self, codes: Tensor) -> Tensor: ...

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]: ...

    def total(self, part: Tensor) -> Tensor: ...

    def restrict(self, rows: Tensor, held_codes: Tensor) -> CurvedObjective: ...


@dataclass(frozen=True)
class Adaptive:
    """Accelerated proximal gradient with steps by curvature and adaptive restart.

    Args:
        max_iterations: upper limit, at least 1.
        tolerance: relative fixed-point residual at which a sample has converged. 0 never stops
            early.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    max_iterations: int = 200
    tolerance: float = 3e-4

    def __post_init__(self) -> None:
        require_limits(self.tolerance, self.max_iterations)

    @property
    def remedy(self) -> str:
        """What to do where inference diverged, which it does only with weights that did."""
        return (
            "the weights have left the range of finite numbers, start again with a smaller "
            "model.optimizer.decoder_learning_rate"
        )

    @torch.no_grad()
    def __call__(self, objective: CurvedObjective, initial_codes: Tensor) -> Solution:
        """Minimise ``objective`` from ``initial_codes`` (n, l), which are left as they are."""
        if objective.quadratic is not None:
            solution = self._descend_quadratic(objective, initial_codes)
            if objective.is_separable:  # energies have been compared
                return solution
            start, energies = initial_codes, objective.comparable(initial_codes)
        else:
            # Whether a sample has converged is for the last iteration to say.
            leapt = leap(objective, initial_codes, self.max_iterations - 1)
            start, energies = leapt.codes, leapt.energies
            solution = AdaptiveDescent(self, objective, leapt).run()
        # Also where the codes are not finite.
        lower = objective.comparable(solution.codes) <= energies
        codes = torch.where(lower, solution.codes, start)
        return Solution(codes, solution.iterations, solution.converged)

    def _descend_quadratic(self, objective: CurvedObjective, initial_codes: Tensor) -> Solution:
        from sparse_lightning.solvers.compiled import descend  # takes long to import

        bend = objective.curvature(initial_codes)
        pace = _Pace(bend, initial_codes, objective, self.max_iterations)
        return descend(
            objective.quadratic, initial_codes, pace.step, pace.momenta, self.tolerance, True
        )


class AdaptiveDescent(Descent):
    """The iterations of `Adaptive` over torch's operations."""

    def __init__(self, solver: Adaptive, objective: CurvedObjective, start: Start) -> None:
        super().__init__(objective, start.codes, solver.max_iterations, solver.tolerance)
        self.start_at(start.taken)
        self.gradient, self.has_gradient = start.gradient, True
        self.pace = _pace_of(objective, start.codes, start.energies, solver.max_iterations)

    def parts(self) -> list[object]:
        return [self, self.pace]

    def prepared(self) -> None:
        self.pace.compare_by(self.objective)

    def advance(self, iteration: int) -> None:
        if not self.has_gradient:
            self.gradient = self.objective.gradient(self.point, out=self.gradient)
        self.has_gradient = False
        pace = self.pace
        pace.see(self.point, self.gradient)
        new = pace.descend(self.point, self.gradient, self.spare)
        new = self.objective.shrink(new, pace.step, out=new)
        self.keep_held(new)
        risen = None
        if iteration % CHECK_EVERY == 0:
            risen = pace.risen(self.objective, new, self.held)
        if risen is not None:
            for tensor in (new, self.codes, self.point):
                torch.where(risen, pace.best, tensor, out=tensor)
        correction = torch.sub(new, self.point, out=self.gradient)
        if self.tolerance > 0:
            done = self._has_converged(new, correction)
            if risen is not None:
                # A sample that was put back has a correction of 0 as well.
                done = done & ~risen.squeeze(1)
            self.hold(done, new)
        change = torch.sub(new, self.codes, out=self.codes)
        torch.addcmul(new, change, pace.momentum(correction, change), out=self.point)
        self.codes, self.spare = new, self.codes

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


def _pace_of(
    objective: CurvedObjective, codes: Tensor, energy: Tensor, max_iterations: int
) -> _Pace:
    bend = objective.curvature(codes)
    if bend.is_bound:
        return _Pace(bend, codes, objective, max_iterations)
    return _MeasuredPace(bend, codes, energy, objective, max_iterations)


class _Pace:
    """Step and momentum of each sample, or of the whole batch where samples are coupled.

    Small tensors cost what large ones do to call, so that momenta are looked up.

    Attributes:
        step: a number for all, or (n, 1) or (1, 1).
        best: the codes of the lowest energy seen, for `risen`.
    """

    step: float | Tensor
    best: Tensor

    def __init__(
        self, bend: Bend, codes: Tensor, objective: CurvedObjective, max_iterations: int
    ) -> None:
        self.is_separable, self.total = objective.is_separable, objective.total
        # A function without any bend may be stepped over as far as one likes.
        upper = max(bend.upper, torch.finfo(codes.dtype).tiny ** 0.5)
        self.step = 1 / upper
        ratio = math.sqrt(min(max(bend.lower, 0.0) / upper, 1.0))
        age = torch.arange(max_iterations, dtype=codes.dtype, device=codes.device)
        self.momenta = (age / (age + 3)).clamp_(max=(1 - ratio) / (1 + ratio))
        rows = len(codes) if self.is_separable else 1
        self.age = torch.zeros(rows, 1, dtype=torch.int64, device=codes.device)

    def see(self, point: Tensor, gradient: Tensor) -> None:
        """Learn from the gradient at a point."""

    def descend(self, point: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        """``point`` less a step along the gradient, written to ``out``."""
        return torch.sub(point, gradient, alpha=self.step, out=out)

    def risen(self, objective: CurvedObjective, codes: Tensor, held: Tensor) -> Tensor | None:
        """Where the energy has risen above that of `best`, (n, 1) or (1, 1); None: nowhere.

        With a bound on the curvature it does not rise. Held samples stay as they are.
        """
        return None

    def compare_by(self, objective: CurvedObjective) -> None:
        """Take the lowest energy anew, of an objective that rounds otherwise."""

    def momentum(self, correction: Tensor, change: Tensor) -> Tensor:
        """How far to extrapolate, (n, 1) or (1, 1), from the last step and the last change."""
        uphill = self._dot(correction, change) < 0
        momentum = self.momenta[self.age].masked_fill_(uphill, 0.0)
        self.age = torch.where(uphill, self.age >> 1, self.age).add_(1)
        self._restarted(uphill)
        return momentum

    def _restarted(self, uphill: Tensor) -> None:
        """Learn where momentum overshot."""

    def _dot(self, left: Tensor, right: Tensor) -> Tensor:
        if self.is_separable:
            return torch.linalg.vecdot(left, right)[:, None]
        return self.total(torch.dot(left.view(-1), right.view(-1)).view(1, 1))

    def restrict(self, rows: Tensor) -> None:
        """Go on with the samples ``rows``, where samples are not coupled."""
        self.age = self.age[rows]


class _MeasuredPace(_Pace):
    """A pace whose curvature starts from an estimate and is measured on the way."""

    def __init__(
        self,
        bend: Bend,
        codes: Tensor,
        energy: Tensor,
        objective: CurvedObjective,
        max_iterations: int,
    ) -> None:
        super().__init__(bend, codes, objective, max_iterations)
        self.best, self.lowest = codes.clone(), energy.clone()
        self.curvature = codes.new_full(self.age.shape, 1 / self.step)
        self.uphill = torch.zeros_like(self.age, dtype=torch.bool)
        self.has_restarted = self.uphill.clone()
        self.point = self.gradient = None

    def see(self, point: Tensor, gradient: Tensor) -> None:
        if self.point is not None:
            moved = torch.sub(point, self.point, out=self.point)
            turned = torch.sub(gradient, self.gradient, out=self.gradient)
            self._measure(self._dot(turned, moved), self._dot(moved, moved))
            self.point.copy_(point)
            self.gradient.copy_(gradient)
        else:
            self.point, self.gradient = point.clone(), gradient.clone()
        self.step = 1 / self.curvature

    def descend(self, point: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(point, gradient, self.step, value=-1, out=out)

    def risen(self, objective: CurvedObjective, codes: Tensor, held: Tensor) -> Tensor | None:
        energy = objective.comparable(codes)
        # Also where it is not a number.
        worse = ~(energy <= self.lowest)
        # Coupled samples are held together.
        worse &= ~held[: len(worse), None]
        self.best = torch.where(worse, self.best, codes)
        self.lowest = torch.where(worse, self.lowest, energy)
        self.curvature = torch.where(worse, LARGEST_RISE * self.curvature, self.curvature)
        self._restarted(worse)
        self.age.masked_fill_(worse, 0)
        return worse

    def compare_by(self, objective: CurvedObjective) -> None:
        self.lowest = objective.comparable(self.best)

    def _measure(self, turned: Tensor, moved: Tensor) -> None:
        old = self.curvature
        measured = torch.where(moved > 0, turned / moved, 0.0)
        calm = torch.where(self.has_restarted, old, torch.maximum(FALL * old, measured))
        calm = torch.where(self.uphill, RISE_AT_RESTART * old, calm)
        self.curvature = torch.where(
            measured > old, torch.minimum(measured, LARGEST_RISE * old), calm
        )

    def _restarted(self, uphill: Tensor) -> None:
        self.uphill = uphill
        self.has_restarted = self.has_restarted | uphill

    def restrict(self, rows: Tensor) -> None:
        super().restrict(rows)
        names = "step point gradient best lowest curvature uphill has_restarted"
        for name in names.split():
            setattr(self, name, getattr(self, name)[rows])
