r"""Proximal gradient, with momentum or without: the loop of `ISTA`, `FISTA` and `Adaptive`.

With a step size :math:`\eta`, from :math:`a = z_0` and :math:`t_1 = 1`,

.. math::
    z_{k} &= \mathrm{prox}_{\eta\lambda R}\big(a - \eta \nabla(a)\big), \qquad
    t_{k+1} = \tfrac12 \big(1 + \sqrt{1 + 4 t_k^2}\big), \\
    a &= z_{k} + \tfrac{t_k - 1}{t_{k+1}} (z_{k} - z_{k-1}),

which is FISTA (Beck & Teboulle 2009); ISTA takes :math:`a = z_k`. A sample has converged at the
first iteration with :math:`\|z_k - z_{k-1}\| < \mathrm{tolerance} \cdot \|z_{k-1}\|`, or whose code
does not change at all. It then keeps that code. The hinge, which couples samples, goes on counting
it (`Objective.restrict`). `ISTA`, `FISTA` and `Adaptive` first project initial codes that the
penalty does not allow, such as negative ones, by its proximal step of size 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vecdot

from sparse_lightning.solvers import cuda_graph, gram_numba
from sparse_lightning.solvers.base import Solution, SolvableObjective, Solver

# Numbers in a batch of codes below which an accelerator is as fast with more of them.
FILLS_AN_ACCELERATOR = 2**20


@dataclass(frozen=True)
class State:
    """Where the iterations of a batch stand; every tensor has a row for each sample.

    Attributes:
        codes: z, (n, l).
        point: a, (n, l), the codes after extrapolation.
        last_point, last_gradient: (n, l), the point before, and the gradient there.
        curvature: L, (n, 1), as far as it has been measured.
        age: (n, 1), iterations since momentum was last 0.
        frozen: (n, 1), which samples have converged.
        iterations: (n, 1), taken by each sample.
    """

    codes: Tensor
    point: Tensor
    last_point: Tensor
    last_gradient: Tensor
    curvature: Tensor
    age: Tensor
    frozen: Tensor
    iterations: Tensor

    @classmethod
    def at(cls, codes: Tensor) -> State:
        """Before the first iteration."""
        codes = codes.clone(memory_format=torch.contiguous_format)
        none = torch.zeros(len(codes), 1, dtype=torch.int64, device=codes.device)
        unknown = codes.new_zeros(len(codes), 1)
        start = torch.zeros_like(codes)
        return cls(codes, codes, codes, start, unknown, none, none.bool(), none)

    def restrict(self, rows: Tensor) -> State:
        """The state of the samples ``rows``."""
        return State(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def clone(self) -> State:
        return State(**{field.name: getattr(self, field.name).clone() for field in fields(self)})

    def store(self, part: State, place: Tensor) -> None:
        """Write the results of some samples to their places."""
        for name in ("codes", "iterations", "frozen"):
            getattr(self, name)[place] = getattr(part, name)

    def measured_curvature(self, gradient: Tensor, least_move: float) -> Tensor:
        r""":math:`\langle \nabla(a') - \nabla(a), a' - a\rangle / \|a' - a\|^2`, (n, 1).

        It is 0 for a sample that moved by no more than ``least_move``, relative: rounding and, with
        the hinge, the other samples turn its gradient as well.
        """
        moved, turned = self.point - self.last_point, gradient - self.last_gradient
        squares = vecdot(moved, moved)
        is_move = squares > least_move**2 * vecdot(self.point, self.point)
        return torch.where(is_move, vecdot(turned, moved) / squares, 0.0)[:, None]


class ProximalGradient(Solver):
    """The loop. Subclasses say how far to step, and how far to extrapolate."""

    max_iterations: int
    tolerance: float
    # Whether momentum restarts where it points uphill. Samples that the hinge couples then converge
    # as one; without restarts each keeps its code from its own convergence on.
    restarts: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        step = self.constant_step(objective, initial_codes)
        if step is not None and self.is_mirrored() and gram_numba.applies(objective, initial_codes):
            return gram_numba.descend(objective, initial_codes, step, self)
        if step is None:
            return self.with_measured_steps(objective, initial_codes)
        return self.descend(objective, State.at(initial_codes), step)

    @classmethod
    def is_mirrored(cls) -> bool:
        """Whether the compiled loops (`gram_numba`) do what this class does: it has no own loop."""
        loop = ("descend", "iterate", "momentum")
        return all(getattr(cls, name) is getattr(ProximalGradient, name) for name in loop)

    def with_measured_steps(self, objective: SolvableObjective, codes: Tensor) -> Solution:
        """All iterations where there is no constant step."""
        return self.descend(objective, State.at(codes), None)

    def descend(self, objective: SolvableObjective, state: State, step: float | None) -> Solution:
        """All iterations, until all samples have converged or the limit is reached.

        How many samples have converged is asked of the device every so many iterations, which
        changes no result. Once enough have, they leave the batch.

        Args:
            objective: of the samples of ``state``.
            state: where to start from.
            step: the constant step size, None where it is measured on the way.
        """
        device, every = state.codes.device, looks_every(state.codes.device)
        found, place = state.clone(), torch.arange(len(state.codes), device=device)
        advance = self._block(objective, step, every, device)
        taken = begun = max(state.iterations.flatten().tolist(), default=self.max_iterations)
        while taken < self.max_iterations:
            left = self.max_iterations - taken
            if left < every:
                advance = self._block(objective, step, left, device)
            state = advance(state)
            taken += every
            num_frozen = int(state.frozen.sum()) if self.tolerance > 0 else 0
            all_frozen = num_frozen == len(place)
            if objective.agree(all_frozen, device):
                break
            changed = objective
            if not all_frozen and is_worth_compacting(num_frozen, state.codes):
                found.store(state, place)
                frozen = state.frozen.squeeze(1)
                kept = (~frozen).nonzero().squeeze(1)
                changed = objective.restrict(kept, state.codes[frozen])
                state, place = state.restrict(kept), place[kept]
            # Samples that have not converged by now may take as many iterations again.
            changed = changed.prepared_for(taken - begun)
            if changed is not objective:
                objective, advance = changed, self._block(changed, step, every, device)
        found.store(state, place)
        return Solution(found.codes, found.iterations.squeeze(1), found.frozen.squeeze(1))

    def _block(
        self, objective: SolvableObjective, step: float | None, length: int, device: torch.device
    ) -> Callable[[State], State]:
        """So many iterations, replayed from a CUDA graph where that can be."""

        def advance(state: State) -> State:
            for _ in range(length):
                state = self.iterate(objective, state, step)
            return state

        # What a solver of one's own does on the host would be recorded once.
        is_of_the_user = not type(self).__module__.startswith("sparse_lightning.")
        if not is_of_the_user and cuda_graph.applies(objective, device):
            return cuda_graph.Replayed(advance, device)
        return advance

    def iterate(self, objective: SolvableObjective, state: State, step: float | None) -> State:
        """One iteration; see the module's formulas."""
        gradient = objective.gradient(state.point)
        curvature = state.curvature
        if step is None:
            curvature = self.updated_curvature(state, gradient)
            step = self.step_size_at(curvature)
        new = objective.prox(state.point - step * gradient, step)
        new = torch.where(state.frozen, state.codes, new)
        change = new - state.codes
        frozen = state.frozen
        if self.tolerance > 0:
            squares = sum_of_squares(change), sum_of_squares(state.codes)
            if self.restarts and not objective.is_separable:
                squares = objective.total(torch.stack(squares).sum(1, keepdim=True))
            frozen = has_converged(*squares, self.tolerance).expand_as(frozen)
        momentum, age = self.momentum(state.age, new - state.point, change)
        return State(
            codes=new,
            # Without momentum a sample stays where it has converged.
            point=new + torch.where(frozen, 0.0, momentum) * change,
            last_point=state.point,
            last_gradient=gradient,
            curvature=curvature,
            age=age,
            frozen=frozen,
            iterations=state.iterations + ~state.frozen,
        )

    @abstractmethod
    def constant_step(self, objective: SolvableObjective, codes: Tensor) -> float | None:
        """The step size of all iterations, None where it is to be measured on the way."""

    @abstractmethod
    def updated_curvature(self, state: State, gradient: Tensor) -> Tensor:
        """L of each sample, (n, 1), with what the gradient at ``state.point`` tells."""

    @abstractmethod
    def step_size_at(self, curvature: Tensor) -> Tensor:
        """The step sizes (n, 1) for these curvatures."""

    @abstractmethod
    def momenta(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Momentum by age, as long as any iteration may need it; not to be written to."""

    def momentum(self, age: Tensor, correction: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """How far to extrapolate, (n, 1), and the age of momentum after that, (n, 1).

        Args:
            age: iterations since momentum was last 0, (n, 1).
            correction: :math:`z_k - a`, (n, l).
            change: :math:`z_k - z_{k-1}`, (n, l).
        """
        momentum = self.momenta(change.dtype, change.device)[age]
        if not self.restarts:
            return momentum, age + 1
        is_uphill = vecdot(correction, change)[:, None] < 0
        return momentum.masked_fill(is_uphill, 0.0), torch.where(is_uphill, 0, age + 1)


def sum_of_squares(codes: Tensor) -> Tensor:
    """Of each sample, (n, l) -> (n, 1)."""
    return vecdot(codes, codes)[:, None]


def has_converged(moved: Tensor, size: Tensor, tolerance: float) -> Tensor:
    r"""Where :math:`\|z_k - z_{k-1}\| < \mathrm{tolerance} \|z_{k-1}\|`, by their squares."""
    # No change at all is convergence too: a zero code has a relative change of 0/0.
    return (moved < tolerance**2 * size) | (moved == 0)


def looks_every(device: torch.device) -> int:
    """How many iterations pass between two looks of the host at who has converged.

    An accelerator runs ahead of the host until the host asks it for a number. On the CPU asking is
    free, and a batch is best compacted at once.
    """
    return 1 if device.type == "cpu" else 10


def is_worth_compacting(num_frozen: int, codes: Tensor) -> bool:
    """Whether dropping the frozen samples saves more than the copying costs."""
    if codes.device.type == "cpu":
        return num_frozen >= max(len(codes) // 8, 8)
    return num_frozen >= len(codes) // 2 and codes.numel() >= FILLS_AN_ACCELERATOR


@cache
def fista_momenta(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    r"""The first :math:`(t_k - 1) / t_{k+1}`, on a device, where they are copied to once."""
    momenta, t = [], 1.0
    for _ in range(count):
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        momenta.append((t - 1) / t_new)
        t = t_new
    with torch.inference_mode(False):
        return torch.tensor(momenta, dtype=dtype, device=device)
