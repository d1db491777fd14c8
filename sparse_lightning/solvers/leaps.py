r"""Leaps: steps of quadratics that know how the decoder bends in all directions.

After some learning most hidden units of a relu network are active for most samples. The network is
then nearly linear in the codes, and one matrix H, an average over the samples, tells how the
energy of each of them bends. From the codes z of a sample the next are

.. math::
    \arg\min_{z' \ge 0}\; \langle \nabla(z), z' - z \rangle
    + \tfrac{1}{2} (z' - z)^\top B\, (z' - z) + \lambda \|z'\|_1 ,

a positive lasso, which the compiled loops solve in less time than the network takes for a gradient
(a proximal quasi-Newton step, Lee, Sun & Saunders 2014). B is a little more than H
at first, and the sample's own from then on, as far as its leaps tell
(`sparse_lightning.solvers.quasi_newton`). A leap uphill is not taken, and B gets larger. Samples
whose energies do not change any more, or would not by what their quadratics say, leap no further;
codes that are all 0 and stay there take none.

Unless energies fall and bend along the first leap, mostly the longest, about as H says for nearly
all samples, none is taken: in a network that is far from linear it would land in some other valley.
A few leaps go most of the way; on the kinks of the network, which no quadratic knows, other steps
have to settle. Of several processes that train one model, each decides for its own samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vecdot

from sparse_lightning.solvers.pace import CurvedObjective
from sparse_lightning.solvers.quasi_newton import QuasiNewton
from sparse_lightning.solvers.start import STORED, Start, no_leaps

# The scale of H for the first leap, and what B is multiplied by after a leap uphill.
FIRST_SCALE, RISE = 1.2, 1.5
# Energies must bend along the first leap, and fall on it, as H says up to this, relative, for this
# share of the samples.
BEND_ERROR, FALL_ERROR, FIRST_SHARE = 0.6, 0.35, 0.9
# The leaps of a sample end with one that changes its energy by less than this, relative, and before
# one that promises less.
WORTHWHILE = 3e-7
# The most leaps, each of which leaves two vectors for every sample; and the share of samples for
# which it is not worth while to let the others wait.
MOST_LEAPS, FEW = 24, 0.05
# The share of samples left, up to which it pays to go on without the others.
MOST_LEFT = 0.9
# How well the lasso of each leap is solved: no better than its quadratic is known. The last number
# is that of all further leaps.
INNER_TOLERANCES = (1e-3, 1e-4, 3e-5, 2e-5)


class LeapedObjective(Protocol):
    """What leaps need of an objective."""

    sparsity_weight: float

    def comparable(self, codes: Tensor) -> Tensor: ...

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]: ...

    def restrict(self, rows: Tensor, held_codes: Tensor) -> LeapedObjective: ...


@dataclass(frozen=True)
class AskedByTheHost:
    """An objective on an accelerator, for leaps that the host's compiled loops take.

    Attributes:
        objective: what is asked there.
        device: where it is. Codes come from the host, and answers go there.
    """

    objective: LeapedObjective
    device: torch.device

    @property
    def sparsity_weight(self) -> float:
        return self.objective.sparsity_weight

    def comparable(self, codes: Tensor) -> Tensor:
        return self.objective.comparable(codes.to(self.device)).cpu()

    def comparable_and_gradient(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        energies, gradient = self.objective.comparable_and_gradient(codes.to(self.device))
        return energies.cpu(), gradient.cpu()

    def restrict(self, rows: Tensor, held_codes: Tensor) -> AskedByTheHost:
        there = rows.to(self.device), held_codes.to(self.device)
        return AskedByTheHost(self.objective.restrict(*there), self.device)


def leap(
    objective: CurvedObjective, codes: Tensor, most: int, *, nothing_follows: bool = False
) -> Start | None:
    """As many leaps as are worthwhile, at most ``most``; None where no one matrix H will do.

    Where the first one does not do as H says, the start is that of the codes. So it is where these
    are 0 and stay there, which counts as one leap.

    Args:
        objective: what is minimised.
        codes: (n, l), where to start from.
        most: leaps of any sample.
        nothing_follows: whether ``most`` leaps would be all there is. The gradient where the last
            one leads to is left out then, unless it is the first, which is judged by it.
    """
    with_gradient = most - 1 if nothing_follows and most <= MOST_LEAPS else most
    limits = min(most, MOST_LEAPS), min(with_gradient, MOST_LEAPS)
    expansion = objective.expanded(codes) if most > 0 else None
    if expansion is None:
        return None
    values, gradient, hessian = expansion
    start, device = Start(codes.clone(), values, gradient, no_leaps(codes)), codes.device
    if device.type == "cpu":
        return _leap_from(start, objective, hessian, *limits)
    asked = AskedByTheHost(objective, device)
    return _leap_from(start.on("cpu"), asked, lambda: hessian().cpu(), *limits).on(device)


def _leap_from(
    start: Start,
    objective: LeapedObjective,
    hessian: Callable[[], Tensor],
    most: int,
    with_gradient: int,
) -> Start:
    """The same by the compiled loops, all given on the CPU.

    Args:
        start: the codes and what is known of them, to be written to.
        objective: what is minimised.
        hessian: makes H, (l, l).
        most: leaps of any sample.
        with_gradient: up to how many of them learn the gradient where they lead to.
    """
    if start.rests_at_zero(objective.sparsity_weight):
        start.leaps.fill_(1)
        return start
    model = QuasiNewton.of(hessian(), torch.full_like(start.energies, FIRST_SCALE))
    if model is None:
        return start
    leaps = Leaps(objective, start, model)
    if not leaps.begin():
        return start
    few = FEW * len(start.codes)
    while leaps.taken < with_gradient and leaps.left > few:
        leaps.go_on()
    if leaps.taken < most and leaps.left > few:
        leaps.finish()
    return leaps.end()


class Leaps:
    """Leaps under way: the samples that still leap, and the account of those that do not.

    Attributes:
        taken: leaps up to now.
        left: how many samples still leap.
    """

    def __init__(self, objective: LeapedObjective, start: Start, model: QuasiNewton) -> None:
        self.found = start
        self.taken, self.left = 0, len(start.codes)
        # Of the samples that still leap, and perhaps of a few that have just ended:
        self.objective, self.model = objective, model
        self.place = torch.arange(len(start.codes), device=start.codes.device)
        self.codes, self.energies, self.gradient = start.codes, start.energies, start.gradient

    def begin(self) -> bool:
        """Take the first leap, the longest; False if H does not tell where it leads to."""
        new, step, expected = self._ahead()
        energies, gradient = self.objective.comparable_and_gradient(new)
        turned, decrease = gradient - self.gradient, self.energies - energies
        is_right = self._is_as_expected(step, turned, expected / self.model.scale, decrease)
        if not is_right.double().mean() >= FIRST_SHARE:
            return False
        is_downhill = decrease >= 0
        model = self.model.rescaled(step, turned, expected)
        self.model = model.stiffened(RISE, ~is_downhill)
        self._land(new, energies, gradient, is_downhill)
        return True

    def _is_as_expected(
        self, step: Tensor, turned: Tensor, expected: Tensor, decrease: Tensor
    ) -> Tensor:
        """Whether an energy falls and bends along its step as H says, but for rounding, (n, 1).

        By how much it falls does not tell enough: where codes shrink to nearly nothing, its slope
        says all of that.
        """
        bend, by_hessian = vecdot(turned, step)[:, None], vecdot(expected, step)[:, None]
        promised, least = self._promised(step, expected), WORTHWHILE * self.energies.abs()
        bends_so = (bend - by_hessian).abs() <= BEND_ERROR * by_hessian + least
        return bends_so & ((decrease - promised).abs() <= FALL_ERROR * promised + least)

    def go_on(self) -> None:
        """Take one leap, downhill, with the samples for which it is worth while."""
        new, step, expected = self._worthwhile()
        if self.left == 0:
            return
        energies, gradient = self.objective.comparable_and_gradient(new)
        decrease = self.energies - energies
        is_downhill = decrease >= 0
        # Changes so small that an energy does not show them are rounding.
        goes_on = (decrease.abs() > WORTHWHILE * self.energies.abs()).squeeze(1)
        model = self.model.taught(step, gradient - self.gradient, expected, goes_on)
        self.model = model.stiffened(RISE, ~is_downhill)
        self._land(new, energies, gradient, is_downhill)
        self._go_on_with(goes_on)

    def finish(self) -> None:
        """Take one leap, downhill, that no other follows: the gradient stays the last one."""
        new, *_ = self._worthwhile()
        energies = self.objective.comparable(new)
        self._land(new, energies, self.gradient, self.energies - energies >= 0)

    def end(self) -> Start:
        """Where they have led to."""
        self._store()
        return self.found

    def _ahead(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where a leap leads to, the step there, and by how much the gradient is to turn on it."""
        new = self._minimum()
        step = new - self.codes
        return new, step, self.model.product(step)

    def _worthwhile(self) -> list[Tensor]:
        """The same, of the samples that it promises enough; where they are few, without others."""
        ahead = self._ahead()
        _, step, expected = ahead
        least = WORTHWHILE * self.energies.abs()
        rows = self._go_on_with((self._promised(step, expected) > least).squeeze(1))
        return [part if rows is None else part[rows] for part in ahead]

    def _promised(self, step: Tensor, expected: Tensor) -> Tensor:
        """By how much the energy is to fall on a step, (n, 1)."""
        slope = vecdot(self.gradient + self.objective.sparsity_weight, step)
        return -(slope + vecdot(expected, step) / 2)[:, None]

    def _minimum(self) -> Tensor:
        """Of the quadratics, with the l1 norm."""
        tolerance = INNER_TOLERANCES[min(self.taken, len(INNER_TOLERANCES) - 1)]
        weight = self.objective.sparsity_weight
        return self.model.minimum(self.codes, self.gradient, weight, tolerance)

    def _land(self, new: Tensor, energies: Tensor, gradient: Tensor, take: Tensor) -> None:
        """Be there where ``take`` (n, 1) says so."""
        self.taken += 1
        if take.all():  # as is mostly so, and to choose costs more than all other passes here
            self.codes, self.energies, self.gradient = new, energies, gradient
            return
        self.codes = torch.where(take, new, self.codes)
        self.energies = torch.where(take, energies, self.energies)
        self.gradient = torch.where(take, gradient, self.gradient)

    def _go_on_with(self, goes_on: Tensor) -> Tensor | None:
        """Leave the other samples where they are, if they are many; returns which then go on."""
        self.left = int(goes_on.sum())
        if self.left > MOST_LEFT * len(self.place):
            return None
        self._store()
        rows = goes_on.nonzero().squeeze(1)
        self.objective = self.objective.restrict(rows, self.codes[:0])
        self.model = self.model.restrict(rows)
        for name in ("place", *STORED):
            setattr(self, name, getattr(self, name)[rows])
        return rows

    def _store(self) -> None:
        for name in STORED:
            getattr(self.found, name)[self.place] = getattr(self, name)
        self.found.leaps[self.place] = self.taken
