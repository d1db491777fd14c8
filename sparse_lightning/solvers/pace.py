"""How far each sample steps, and how far it is carried on: steps by curvature, momentum by age.

See `sparse_lightning.solvers.adaptive` for the rules.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from sparse_lightning.smooth import Curvature, Expansion, Outset
from sparse_lightning.solvers.descent import ProximalObjective

LARGEST_RISE, FALL, RISE_AT_RESTART = 2.0, 0.9, 1.15
# A sample that settles does without momentum where its codes have changed by less than this part
# of the step: the step has taken back most of what momentum carried.
LEAST_CHANGE = 0.8


class CurvedObjective(ProximalObjective, Protocol):
    """An objective that knows how far it bends, and can compare codes.

    Beside its smooth function it has the sparsity weight times the l1 norm over non-negative codes,
    which leaps and compiled steps take for granted.
    """

    is_separable: bool

    sparsity_weight: float

    def curvature(self, codes: Tensor) -> Curvature: ...

    def expanded(self, codes: Tensor) -> Expansion | None: ...

    def comparable(self, codes: Tensor) -> Tensor: ...

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]: ...

    def outset(self, codes: Tensor) -> Outset: ...

    def total(self, part: Tensor) -> Tensor: ...

    def restrict(self, rows: Tensor, held_codes: Tensor) -> CurvedObjective: ...


def pace_of(
    objective: CurvedObjective, codes: Tensor, energy: Tensor, bend: Curvature, max_iterations: int
) -> Pace:
    """By the objective's bound on its curvature, or measured where it has none.

    Args:
        objective: what is minimised.
        codes: (n, l), where the search starts.
        energy: of the codes, (n, 1) or (1, 1).
        bend: how far the objective bends there.
        max_iterations: how many momenta may be needed.
    """
    if bend.is_bound:
        return Pace(bend, codes, objective, max_iterations)
    return MeasuredPace(bend, codes, energy, objective, max_iterations)


class Pace:
    """Step and momentum of each sample, or of the whole batch where samples are coupled.

    Small tensors cost what large ones do to call, so that momenta are looked up.

    Attributes:
        step: a number for all, or (n, 1) or (1, 1).
        best: the codes of the lowest energy seen, for `risen`.
    """

    step: float | Tensor
    best: Tensor

    def __init__(
        self, bend: Curvature, codes: Tensor, objective: CurvedObjective, max_iterations: int
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

    def momentum(
        self, codes: Tensor, correction: Tensor, change: Tensor, settling: Tensor | None
    ) -> Tensor:
        r"""How far to extrapolate, (n, 1) or (1, 1).

        Args:
            codes: (n, l).
            correction, change: (n, l) each, by which the codes differ from the last point, and
                from the last codes.
            settling: the square of the size of a correction beside that of its code, up to which
                a sample settles, (1,): it then does without momentum where
                :math:`\|\mathrm{change}\| < 0.8 \|\mathrm{correction}\|`. None: never.
        """
        rests = self._learn_rests(codes, correction, change, settling)
        momentum = self.momenta[self.age].masked_fill_(rests, 0.0)
        self.age = torch.where(rests, self.age >> 1, self.age).add_(1)
        return momentum

    def _learn_rests(
        self, codes: Tensor, correction: Tensor, change: Tensor, settling: Tensor | None
    ) -> Tensor:
        """Where to do without momentum, (n, 1) or (1, 1)."""
        return self._is_uphill(correction, change)

    def _is_uphill(self, correction: Tensor, change: Tensor) -> Tensor:
        (slope,) = self._dots((correction, change))
        return slope < 0

    def _dots(self, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Inner products of codes, (n, 1) each, or (1, 1) of the batch."""
        if self.is_separable:
            return [torch.linalg.vecdot(*pair)[:, None] for pair in pairs]
        dots = [torch.dot(left.view(-1), right.view(-1)) for left, right in pairs]
        return list(self.total(torch.stack(dots)).view(-1, 1, 1))

    def restrict(self, rows: Tensor) -> None:
        """Go on with the samples ``rows``, where samples are not coupled."""
        self.age = self.age[rows]


class MeasuredPace(Pace):
    """A pace whose curvature starts from an estimate and is measured on the way.

    Attributes:
        curvature: L, (n, 1) or (1, 1), as are:
        rests: where momentum was left out after the last step, so that L rises a little.
        has_restarted: where momentum has pointed uphill before, so that L does not fall any more.
        point, gradient: (n, l), the last ones.
    """

    def __init__(
        self,
        bend: Curvature,
        codes: Tensor,
        energy: Tensor,
        objective: CurvedObjective,
        max_iterations: int,
    ) -> None:
        super().__init__(bend, codes, objective, max_iterations)
        self.best, self.lowest = codes.clone(), energy.clone()
        self.curvature = codes.new_full(self.age.shape, 1 / self.step)
        self.step = 1 / self.curvature
        self.rests = torch.zeros_like(self.age, dtype=torch.bool)
        self.has_restarted = self.rests.clone()
        self.point = self.gradient = None

    def see(self, point: Tensor, gradient: Tensor) -> None:
        if self.point is not None:
            moved = torch.sub(point, self.point, out=self.point)
            turned = torch.sub(gradient, self.gradient, out=self.gradient)
            self._measure(*self._dots((turned, moved), (moved, moved)))
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
        self.has_restarted = self.has_restarted | worse
        self.age.masked_fill_(worse, 0)
        return worse

    def compare_by(self, objective: CurvedObjective) -> None:
        self.lowest = objective.comparable(self.best)

    def _measure(self, turned: Tensor, moved: Tensor) -> None:
        old = self.curvature
        measured = torch.where(moved > 0, turned / moved, 0.0)
        calm = torch.where(self.has_restarted, old, torch.maximum(FALL * old, measured))
        calm = torch.where(self.rests, RISE_AT_RESTART * old, calm)
        self.curvature = torch.where(
            measured > old, torch.minimum(measured, LARGEST_RISE * old), calm
        )

    def _learn_rests(
        self, codes: Tensor, correction: Tensor, change: Tensor, settling: Tensor | None
    ) -> Tensor:
        is_uphill = self.rests = self._is_uphill(correction, change)
        if settling is not None:
            pairs = (change, change), (correction, correction), (codes, codes)
            changed, corrected, size = self._dots(*pairs)
            is_taken_back = changed < LEAST_CHANGE**2 * corrected
            self.rests = is_uphill | (is_taken_back & (corrected <= settling * size))
        self.has_restarted = self.has_restarted | is_uphill
        return self.rests

    def restrict(self, rows: Tensor) -> None:
        super().restrict(rows)
        names = "step point gradient best lowest curvature rests has_restarted"
        for name in names.split():
            setattr(self, name, getattr(self, name)[rows])
