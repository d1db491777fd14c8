r"""The variance hinge as a landscape (Fig. 10 of the paper).

Two samples with one code component each make the smallest batch that has a variance:
:math:`\sigma = |z_1 - z_2| / \sqrt2`, so that :math:`[(T - \sigma)_+]^2` is a ridge along
:math:`z_1 = z_2` where the codes collapse, and flat 0 beyond. The gradient is that of
`VarianceHinge`.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.variance import Moments, VarianceHinge


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
    moments = Moments.of(codes)
    value = (threshold - moments.standard_deviation()).relu().square()
    gradient = VarianceHinge(1.0, threshold).gradient(codes, moments)[0]
    return pd.DataFrame({"z1": first, "z2": second, "hinge": value, "gradient": gradient})
