"""What a solver is, what it asks of an objective, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol

import torch
from torch import Tensor

from sparse_lightning.energy import EncoderPenalty, Objective
from sparse_lightning.errors import require_count, require_non_negative
from sparse_lightning.penalties import NonNegativeL1
from sparse_lightning.variance import VarianceHinge


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        codes: (n, l).
        iterations: (n,) iterations that each sample took.
        converged: (n,) whether it met the tolerance; false where the batch's iterations ran out.
    """

    codes: Tensor
    iterations: Tensor
    converged: Tensor


class SolvableObjective(Protocol):
    """A smooth function of a batch of codes (n, l) plus a penalty with a proximal step.

    `sparse_lightning.energy.Objective` is one.
    """

    is_separable: bool

    def gradient(self, codes: Tensor) -> Tensor: ...

    def prox(self, codes: Tensor, step_size: float | Tensor) -> Tensor: ...

    def energies(self, codes: Tensor) -> Tensor: ...

    def lipschitz(self, codes: Tensor, enough: float = 0.0) -> float | None: ...

    def restrict(self, rows: Tensor, frozen_codes: Tensor) -> SolvableObjective: ...

    def without_hinge(self) -> SolvableObjective: ...

    def prepared_for(self, gradients: int) -> SolvableObjective: ...

    def total(self, part: Tensor) -> Tensor: ...

    def agree(self, holds: bool, device: torch.device) -> bool: ...


def has_known_terms(objective: Any) -> bool:
    """Whether all terms but the data fit, and their sum, are those that faster loops know.

    A class of a user's own that inherits from one of these may have another formula.
    """
    return (
        type(objective) is Objective
        and type(objective.penalty) is NonNegativeL1
        and type(objective.encoder_penalty) in (EncoderPenalty, NoneType)
        and type(objective.energy.hinge) in (VarianceHinge, NoneType)
    )


class Solver(ABC):
    """Base of all solvers: minimises an objective from initial codes.

    A solver of one's own writes ``__call__``, and knows nothing but the objective.
    """

    @abstractmethod
    def __call__(self, objective: SolvableObjective, initial_codes: Tensor) -> Solution:
        """Minimise ``objective`` from ``initial_codes`` (n, l), which are left as they are."""

    @property
    def divergence_hint(self) -> str:
        """What to do where inference diverged."""
        return (
            "the weights have left the range of finite numbers, start again with a smaller "
            "model.optimizer.decoder_learning_rate"
        )

    @property
    def strain_hint(self) -> str:
        """What to do where iterations grow, or samples no longer converge."""
        return "solver=adaptive, or more than solver.max_iterations"


def require_limits(tolerance: float, max_iterations: int) -> None:
    """Raise `SettingError` unless a solver can stop by these limits."""
    require_non_negative("solver.tolerance", tolerance)
    require_count("solver.max_iterations", max_iterations)


def no_higher(
    objective: SolvableObjective, solution: Solution, start: Tensor, energies: Tensor
) -> Solution:
    """The solution, with the codes of the start where those have the lower energy.

    Iterations and convergence remain those of the solution.

    Args:
        objective: what was minimised.
        solution: what was found.
        start: codes (n, l).
        energies: of the start, as ``objective.energies`` has them.
    """
    # The comparison is false for NaN, which keeps the start too.
    is_lower = objective.energies(solution.codes) <= energies
    codes = torch.where(is_lower, solution.codes, start)
    return Solution(codes, solution.iterations, solution.converged)
