r"""Proximal gradient: ISTA and FISTA, in one loop.

With a step size :math:`\eta`, from :math:`a = z_0` and :math:`t_1 = 1`,

.. math::
    z_{k} &= \mathrm{prox}_{\eta\lambda R}\big(a - \eta \nabla(a)\big), \qquad
    t_{k+1} = \tfrac12 \big(1 + \sqrt{1 + 4 t_k^2}\big), \\
    a &= z_{k} + \tfrac{t_k - 1}{t_{k+1}} (z_{k} - z_{k-1}),

which is FISTA (Beck & Teboulle 2009); ISTA takes :math:`a = z_k`. A sample has converged at the
first iteration with :math:`\|z_k - z_{k-1}\| < \mathrm{tolerance} \cdot \|z_{k-1}\|`, or whose code
does not change at all. It then keeps that code. The hinge, which couples samples, goes on counting
it (`Objective.restrict`). Initial codes that the penalty does not allow, such as negative ones, are
projected first, by its proximal step of size 0.

**The paper's step, safeguarded.** A constant step is stable while :math:`\eta L < 4/3` with full
momentum, and while :math:`\eta L < 2` without, L being the largest curvature (the eigenvalue of the
iteration leaves the unit circle there). A decoder that is free to grow passes that bound in the
course of training. Where an upper bound of L is known (of a linear decoder), it either shows that
the constant step is stable, or the step is 1 over that bound. Elsewhere each sample's curvature is
measured between successive points,
:math:`L = \langle \nabla(a') - \nabla(a), a' - a\rangle / \|a' - a\|^2`, at no further gradient. A
sample whose L shows that the step is not stable goes on with a step of :math:`1/L`. Where neither
happens nothing changes, unless some sample does not converge: then the samples whose energy rose
keep their initial codes. ``safeguard=False`` is the literal algorithm.
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

from sparse_lightning.errors import require_positive
from sparse_lightning.registry import register
from sparse_lightning.solvers import cuda_graph, gram_numba
from sparse_lightning.solvers.base import (
    Solution,
    SolvableObjective,
    Solver,
    no_higher,
    require_limits,
)

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
    # Whether momentum restarts where it points uphill.
    restarts: ClassVar[bool] = False
    # Whether samples that the hinge couples converge as one: else each keeps its code once it has.
    ends_together: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        step = self.constant_step(objective, initial_codes)
        if step is not None and self.is_mirrored() and gram_numba.applies(objective, initial_codes):
            return gram_numba.descend(objective, initial_codes, step, self)
        if step is None:
            return self.descend(objective, self.initial_state(objective, initial_codes), None)
        return self.descend(objective, State.at(initial_codes), step)

    @classmethod
    def is_mirrored(cls) -> bool:
        """Whether the compiled loops (`gram_numba`) do what this class does.

        They do where a subclass has no loop of its own, and where samples end together if and only
        if momentum restarts.
        """
        loop = ("descend", "iterate", "momentum")
        is_own = any(getattr(cls, name) is not getattr(ProximalGradient, name) for name in loop)
        return not is_own and cls.restarts == cls.ends_together

    def initial_state(self, objective: SolvableObjective, codes: Tensor) -> State:
        """Where iterations with a measured step start from."""
        return State.at(codes)

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

        if cuda_graph.applies(objective, device):
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
            if self.ends_together and not objective.is_separable:
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
    def momenta(self) -> tuple[float, ...]:
        """Momentum by age, as long as any iteration may need it."""

    def momentum(self, age: Tensor, correction: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """How far to extrapolate, (n, 1), and the age of momentum after that, (n, 1).

        Args:
            age: iterations since momentum was last 0, (n, 1).
            correction: :math:`z_k - a`, (n, l).
            change: :math:`z_k - z_{k-1}`, (n, l).
        """
        momentum = table(self.momenta(), change.dtype, change.device)[age]
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
def fista_momenta(count: int) -> tuple[float, ...]:
    r"""The first :math:`(t_k - 1) / t_{k+1}`."""
    momenta, t = [], 1.0
    for _ in range(count):
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        momenta.append((t - 1) / t_new)
        t = t_new
    return tuple(momenta)


@cache
def table(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers on a device, where they are copied to once; not to be written to."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)


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
            stable. If some sample has not converged, each sample whose energy ended higher than it
            began also keeps its initial code.

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

    def momenta(self) -> tuple[float, ...]:
        return (0.0,) * self.max_iterations


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

    def momenta(self) -> tuple[float, ...]:
        return fista_momenta(self.max_iterations)
