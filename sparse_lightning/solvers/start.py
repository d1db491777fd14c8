"""Where the steps of a search start from, after leaps or without any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sparse_lightning.smooth import Curvature
from sparse_lightning.solvers.pace import CurvedObjective

# What is known of each sample, beside how many leaps it has taken.
STORED = ("codes", "energies", "gradient")


@dataclass(frozen=True)
class Start:
    """Where other steps start from.

    Attributes:
        codes: (n, l).
        energies: of the codes, (n, 1) or (1, 1).
        gradient: at the codes, (n, l); of samples that took the last of all leaps, where that
            began.
        leaps: (n,) up to here, by sample; each counts as an iteration.
        curvature: how far the objective bends near the codes, where that is known.
    """

    codes: Tensor
    energies: Tensor
    gradient: Tensor
    leaps: Tensor
    curvature: Curvature | None = None

    @property
    def taken(self) -> int:
        """The most leaps of any sample."""
        return max(self.leaps.tolist(), default=0)

    def rests_at_zero(self, sparsity_weight: float) -> bool:
        """Whether all codes are 0 and stay there."""
        return not self.codes.any() and bool((self.gradient >= -sparsity_weight).all())

    def on(self, device: torch.device | str) -> Start:
        """The same on a device."""
        parts = {name: getattr(self, name).to(device) for name in (*STORED, "leaps")}
        return replace(self, **parts)

    @classmethod
    def at(cls, objective: CurvedObjective, codes: Tensor, leaps: Tensor) -> Self:
        """As the objective sees these codes."""
        energies, gradient, curvature = objective.outset(codes)
        return cls(codes, energies, gradient, leaps, curvature)


def no_leaps(codes: Tensor) -> Tensor:
    """None for each sample, (n,)."""
    return torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
