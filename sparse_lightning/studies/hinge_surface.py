r"""The variance hinge as a landscape (Fig. 10 of the paper).

Two samples with one code component each make the smallest batch that has a variance:
:math:`\sigma = |z_1 - z_2| / \sqrt2`, so that :math:`[(T - \sigma)_+]^2` is a ridge along
:math:`z_1 = z_2` where the codes collapse, and flat 0 beyond. The gradient is that of `Energy`
with every other term switched off.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from sparse_lightning.energy import ActiveObjective, Energy, Moments
from sparse_lightning.studies.study_result import StudyResult


def hinge_surface(
    variance_threshold: float = 0.5, largest: float = 1.5, steps: int = 61, line_at: float = 0.3
) -> StudyResult:
    """The hinge of a batch of two over a square, and its gradient over a line.

    Args:
        variance_threshold: T.
        largest: both codes go from 0 to this.
        steps: points along each side.
        line_at: the second code's value on the line.

    Returns:
        ``table``: columns z1, z2, hinge; ``line``: columns z1, z2, hinge, gradient (with respect
        to z1, eq. 12).
    """
    side = torch.linspace(0, largest, steps, dtype=torch.float64)
    first, second = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    line = torch.linspace(0, largest, 10 * (steps - 1) + 1, dtype=torch.float64)
    return StudyResult(
        _frame(first, second, variance_threshold).drop(columns="gradient"),
        {"line": _frame(line, torch.full_like(line, line_at), variance_threshold)},
    )


def _frame(first: Tensor, second: Tensor, threshold: float) -> pd.DataFrame:
    # Each pair is a component of its own, which the hinge does not couple with the others.
    codes = torch.stack([first, second])
    value = (threshold - Moments.of(codes).standard_deviation()).relu().square()
    gradient = hinge_alone(codes, threshold).gradient(codes)[0]
    return pd.DataFrame({"z1": first, "z2": second, "hinge": value, "gradient": gradient})


@dataclass(frozen=True)
class Nothing:
    """A smooth term that is 0 everywhere."""

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.zeros_like(codes)

    def restrict(self, rows: Tensor) -> Nothing:
        return self


def hinge_alone(codes: Tensor, threshold: float) -> ActiveObjective:
    r"""The objective of which nothing is left but :math:`\sum_j [(T - \sigma_j)_+]^2`."""
    energy = Energy(sparsity_weight=0.0, variance_weight=1.0, variance_threshold=threshold)
    return ActiveObjective(energy, Nothing(), (torch.empty_like(codes), torch.empty_like(codes)))
