"""What a solver is asked to stop at, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse_lightning.errors import SettingError, require_non_negative


def require_limits(tolerance: float, max_iterations: int) -> None:
    """Raise `SettingError` unless a solver can stop by these limits."""
    require_non_negative("solver.tolerance", tolerance)
    if max_iterations < 1:
        raise SettingError(
            f"solver.max_iterations={max_iterations} must be at least 1: "
            "inference needs one iteration to move."
        )


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        codes: (n, l), non-negative.
        iterations: (n,) iterations that each sample took.
        converged: (n,) whether it met the tolerance; false where the batch's iterations ran out.
    """

    codes: Tensor
    iterations: Tensor
    converged: Tensor
