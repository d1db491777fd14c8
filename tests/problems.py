"""Small problems in float64, and a literal reading of the energy and of the solvers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.penalties import (
    L1,
    GroupLasso,
    NonNegativeGroupLasso,
    NonNegativeL0,
    NonNegativeLogSum,
    Penalty,
)
from sparse_lightning.solvers import FISTA, ISTA, Adaptive

INPUT_DIM, CODE_DIM = 30, 12


class Softplus(Decoder):
    """A decoder of a user's own, whose curvature nobody wrote down."""

    def __init__(self) -> None:
        super().__init__()
        self.code_dim, self.input_dim = CODE_DIM, INPUT_DIM
        self.layers = nn.Sequential(
            nn.Linear(CODE_DIM, 20), nn.Softplus(), nn.Linear(20, INPUT_DIM)
        )

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


@dataclass(frozen=True)
class SignedL1(Penalty):
    """A penalty of a user's own: the l1 norm of codes with signs."""

    is_signed = True

    def value(self, codes: Tensor) -> Tensor:
        return codes.abs().sum(-1)

    def prox(self, codes: Tensor, threshold: float | Tensor) -> Tensor:
        return codes.sign() * torch.relu(codes.abs() - threshold)


DECODERS = {
    "linear": lambda: LinearDecoder(CODE_DIM, INPUT_DIM),
    "one hidden layer": lambda: MultiLayerDecoder(CODE_DIM, [24], INPUT_DIM),
    "two hidden layers": lambda: MultiLayerDecoder(CODE_DIM, [24, 18], INPUT_DIM),
    "a user's own": Softplus,
}
# By the families that have such an energy.
ENERGIES = {
    "DO": Energy(0.02),
    "SDL, WDL, none": Energy(0.02, encoder_weight=1.0),
    "VDL": Energy(0.02, 10.0, 0.5, 5.0),
    "hinge alone": Energy(0.02, 3.0, 2.0),
}
# All but the one of `ENERGIES`, and one of a user's own.
PENALTIES = {
    "log-sum": NonNegativeLogSum(0.3),
    "signed": L1(),
    "l0": NonNegativeL0(),
    "groups": NonNegativeGroupLasso(3),
    "signed groups": GroupLasso(4),
    "a user's own": SignedL1(),
}


@dataclass(frozen=True)
class Problem:
    """A batch, a decoder and an energy, with a start for solvers."""

    energy: Energy
    decoder: Decoder
    inputs: Tensor
    encoder_codes: Tensor
    start: Tensor

    @property
    def objective(self) -> Objective:
        return self.energy.bind(self.decoder, self.inputs, self.encoder_codes)

    def to(self, dtype: torch.dtype) -> Problem:
        parts = (self.inputs, self.encoder_codes, self.start)
        return Problem(self.energy, self.decoder.to(dtype), *(part.to(dtype) for part in parts))


def problem(decoder: str, energy: Energy, count: int = 40, growth: float = 3.0) -> Problem:
    """Inputs that a decoder made, of very different size, so that samples differ in difficulty."""
    made = DECODERS[decoder]().double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(growth)
        codes = torch.rand(count, CODE_DIM).double() * (torch.rand(count, CODE_DIM) < 0.3)
        codes *= torch.logspace(-2, 0.5, count)[:, None].double()
        inputs = made(codes) + 0.1 * torch.randn(count, INPUT_DIM).double()
    start = torch.rand(count, CODE_DIM).double()
    start[::7] = 0
    return Problem(energy, made, inputs, start.clone(), start)


def literal_energy(problem: Problem, codes: Tensor, *, with_penalty: bool = True) -> Tensor:
    """E(Z), as the formula has it."""
    energy = problem.energy
    total = (problem.decoder(codes) - problem.inputs).square().mean(1).sum()
    total = total + energy.encoder_weight * (codes - problem.encoder_codes).square().mean(1).sum()
    if energy.variance_weight > 0:
        deviation = codes.std(0)
        shortfall = torch.where(deviation > 0, energy.variance_threshold - deviation, 0.0)
        total = total + energy.variance_weight * shortfall.clamp_min(0).square().sum()
    if with_penalty:
        total = total + energy.sparsity_weight * energy.penalty.value(codes).sum()
    return total


def literal_gradient(problem: Problem, codes: Tensor) -> Tensor:
    """The gradient of all terms but the penalty, by autograd."""
    codes = codes.detach().clone().requires_grad_()
    return torch.autograd.grad(literal_energy(problem, codes, with_penalty=False), codes)[0]


class LiteralSample:
    """One sample's way: step, momentum and convergence, in numbers of Python's."""

    def __init__(self, solver: ISTA | Adaptive, code: Tensor, curvature: float, bound: bool):
        self.solver, self.bound = solver, bound
        self.code, self.point = code.clone(), code.clone()
        self.curvature, self.last = curvature, None
        self.t, self.iterations, self.converged, self.restarted = 1.0, 0, False, False

    def step_size(self, gradient: Tensor) -> float:
        adaptive = isinstance(self.solver, Adaptive)
        if self.last is not None and not self.bound:
            moved, turned = self.point - self.last[0], gradient - self.last[1]
            size = float(moved.norm())
            least = 0.0 if adaptive else self.solver.tolerance
            measured = 0.0
            if size > least * float(self.point.norm()):
                measured = float(turned @ moved) / size**2
            if adaptive:
                lowest = self.curvature if self.restarted else 0.9 * self.curvature
                self.curvature = min(max(measured, lowest), 2 * self.curvature)
            else:
                self.curvature = max(measured, self.curvature)
        elif adaptive and not self.bound:
            self.curvature *= 0.9
        self.last = self.point.clone(), gradient.clone()
        if adaptive:
            return 1 / self.curvature
        stable = not self.solver.safeguard or (
            self.solver.step_size * self.curvature <= self.solver.STABLE
        )
        return self.solver.step_size if stable else 1 / self.curvature

    def advance(self, gradient: Tensor, problem: Problem) -> None:
        if self.converged:
            return
        self.iterations += 1
        step = self.step_size(gradient)
        target = (self.point - step * gradient)[None]
        new = problem.energy.penalty.prox(target, step * problem.energy.sparsity_weight)[0]
        change = new - self.code
        self.moved, self.size = float(change.norm()), float(self.code.norm())
        couples = problem.energy.variance_weight > 0
        if self.solver.tolerance > 0 and not (couples and isinstance(self.solver, Adaptive)):
            self.converged = self.moved < self.solver.tolerance * self.size or self.moved == 0
        t_new = (1 + math.sqrt(1 + 4 * self.t**2)) / 2
        momentum = (self.t - 1) / t_new if isinstance(self.solver, FISTA | Adaptive) else 0.0
        self.t = t_new
        if isinstance(self.solver, Adaptive) and float((new - self.point) @ change) < 0:
            momentum, self.t, self.restarted = 0.0, 1.0, True
        self.point = new if self.converged else new + momentum * change
        self.code = new


def literal_solution(
    problem: Problem, solver: ISTA | Adaptive, curvature: Tensor, bound: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, iterations and convergence by the solver's rule, one sample after another.

    Args:
        problem: of n samples.
        solver: its settings.
        curvature: L that each sample starts from, (n,).
        bound: whether that holds for good.
    """
    samples = [
        LiteralSample(solver, code, float(own), bound)
        for code, own in zip(problem.start, curvature)
    ]
    for _ in range(solver.max_iterations):
        gradients = literal_gradient(problem, torch.stack([s.point for s in samples]))
        for sample, gradient in zip(samples, gradients):
            sample.advance(gradient, problem)
        if isinstance(solver, Adaptive) and problem.energy.variance_weight > 0:
            end_together(samples, solver.tolerance)
        if all(sample.converged for sample in samples):
            break
    codes = torch.stack([sample.code for sample in samples])
    iterations = torch.tensor([sample.iterations for sample in samples])
    converged = torch.tensor([sample.converged for sample in samples])
    if isinstance(solver, Adaptive) or (solver.safeguard and not converged.all()):
        codes = no_higher_than_the_start(problem, codes)
    return codes, iterations, converged


def end_together(samples: list[LiteralSample], tolerance: float) -> None:
    """Coupled samples converge as one, by the norm of the batch."""
    moved = math.sqrt(sum(sample.moved**2 for sample in samples))
    size = math.sqrt(sum(sample.size**2 for sample in samples))
    if tolerance > 0 and (moved < tolerance * size or moved == 0):
        for sample in samples:
            sample.converged = True


def no_higher_than_the_start(problem: Problem, codes: Tensor) -> Tensor:
    """The codes; those of the start where the energy, of a sample or of coupled ones, is lower."""
    count = len(codes)
    rows = [slice(0, count)] if problem.energy.variance_weight > 0 else torch.arange(count)[:, None]
    best = codes.clone()
    for own in rows:
        part = replace(
            problem, inputs=problem.inputs[own], encoder_codes=problem.encoder_codes[own]
        )
        if not literal_energy(part, codes[own]) <= literal_energy(part, problem.start[own]):
            best[own] = problem.start[own]
    return best
