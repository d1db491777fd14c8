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

Momentum is FISTA's, :math:`k / (k + 3)` with k the number of iterations before. Where it points
uphill (the gradient test of O'Donoghue & Candès 2015) it rests for a step and k is halved: where a
problem is ill-conditioned, starting from zero would lose more speed than the overshoot calls for.
It is never above what is best for a function that bends upwards by :math:`\mu` at least,
:math:`(1 - \sqrt{\mu/L}) / (1 + \sqrt{\mu/L})`.

Where the curvature is measured and samples are not coupled, momentum has a second reason to rest.
Far from the end, momentum that overshoots is good: it carries samples over kinks, to better minima.
Close to it, it keeps them going to and fro on the kinks. A sample therefore settles whenever
:math:`\|z_k - a\| \le \min(30\, \mathrm{tolerance}, 0.01) \, \|z_k\|`, a being the extrapolated
point, and in all the second half of the iterations (from where leaps, see below, have led to).
Momentum then rests, too, where the step takes back so much of what momentum carried that
:math:`\|z_k - z_{k-1}\| < 0.8 \, \|z_k - a\|`. Where momentum carries further than that, as it does
where problems are ill-conditioned, it goes on. Whenever it rests L rises by 15 % unless more is
measured; it may fall again, but after an overshoot uphill.

A sample has converged when a step of :math:`1/L` from an extrapolated point moves it by no more
than the tolerance, :math:`\|z_k - a\| \le \mathrm{tolerance} \cdot \|z_k\|`: that is the residual
of the fixed-point equation, whatever the step size. Coupled samples converge together. Where the
curvature is measured, the energy is looked at now and then, and where it has risen the search goes
back to the best codes with half the step and no momentum. Codes of higher energy than the initial
ones are never returned.

Two things are different. Where the smooth function is quadratic and on the CPU, compiled loops do
all of this, and mostly end by an exact solution (`sparse_lightning.solvers.compiled`); and where a
relu network is nearly linear, before the rest a few steps of quadratics that know its curvature in
all directions go most of the way (`sparse_lightning.solvers.leaps`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse_lightning.smooth import Outlook
from sparse_lightning.solvers.adaptive_descent import descent_of
from sparse_lightning.solvers.leaps import leap
from sparse_lightning.solvers.pace import CurvedObjective, Pace
from sparse_lightning.solvers.solution import Solution, require_limits
from sparse_lightning.solvers.start import Start, no_leaps


@dataclass(frozen=True)
class Adaptive:
    """Accelerated proximal gradient with steps by curvature and adaptive restart.

    Args:
        max_iterations: upper limit, at least 1. In its second half samples settle, see above.
        tolerance: relative fixed-point residual at which a sample has converged. With 0 none has:
            all iterations are taken, but by samples that wait while others leap.

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

    @property
    def divergence_hint(self) -> str:
        """What to do where inference diverged, or is about to."""
        return self.remedy

    @torch.no_grad()
    def __call__(self, objective: CurvedObjective, initial_codes: Tensor) -> Solution:
        """Minimise ``objective`` from ``initial_codes`` (n, l), which are left as they are."""
        if objective.quadratic is None:
            return self._descend(objective, initial_codes)
        solution = self._descend_quadratic(objective, initial_codes)
        if objective.is_separable:  # energies have been compared
            return solution
        return _no_higher(objective, solution, initial_codes, objective.comparable(initial_codes))

    def _descend(self, objective: CurvedObjective, initial_codes: Tensor) -> Solution:
        if len(initial_codes) == 0:
            none = no_leaps(initial_codes)
            return Solution(initial_codes.clone(), none, none.bool())
        # Whether a sample has converged is for the iterations after the leaps to say, but where all
        # are at rest.
        takes_all = self.tolerance == 0
        most = self.max_iterations if takes_all else self.max_iterations // 2
        start = leap(objective, initial_codes, most, nothing_follows=takes_all)
        if start is None:
            codes, leaps, taken = initial_codes, no_leaps(initial_codes), 0
        else:
            codes, leaps, taken = start.codes, start.leaps, start.taken
        if taken == self.max_iterations:
            return Solution(codes, leaps, torch.zeros_like(leaps, dtype=torch.bool))
        if start is not None and not takes_all and start.rests_at_zero(objective.sparsity_weight):
            return Solution(codes, leaps, torch.ones_like(leaps, dtype=torch.bool))
        prepared = self._prepared(objective, codes, taken)
        if start is None or prepared is not objective:
            start = Start.at(prepared, codes, leaps)
        solution = descent_of(prepared, start, taken, self).run()
        iterations = solution.iterations - (taken - leaps)
        return _no_higher(prepared, replace(solution, iterations=iterations), codes, start.energies)

    def _prepared(self, objective: CurvedObjective, codes: Tensor, taken: int) -> CurvedObjective:
        """For the iterations to come, where one knows how many."""
        if self.tolerance > 0:
            return objective
        return objective.prepared_for(Outlook(self.max_iterations - taken, codes, codes))

    def _descend_quadratic(self, objective: CurvedObjective, initial_codes: Tensor) -> Solution:
        from sparse_lightning.solvers.compiled import descend  # takes long to import

        bend = objective.curvature(initial_codes)
        pace = Pace(bend, initial_codes, objective, self.max_iterations)
        return descend(
            objective.quadratic, initial_codes, pace.step, pace.momenta, self.tolerance, True
        )


def _no_higher(
    objective: CurvedObjective, solution: Solution, start: Tensor, energies: Tensor
) -> Solution:
    """The codes of a solution, or those of its start where these have the lower energy."""
    # Also where the codes are not finite.
    lower = objective.comparable(solution.codes) <= energies
    return replace(solution, codes=torch.where(lower, solution.codes, start))
