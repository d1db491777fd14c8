"""What a solver returns, and the account of who has converged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
        converged: (n,) whether it met the tolerance; false where the iterations ran out.
    """

    codes: Tensor
    iterations: Tensor
    converged: Tensor


class ShrinkingBatch:
    """Keeps the account of which samples still move, and where each belongs in the solution.

    A converged sample is held where it is. Once enough are held, they leave the batch; dropping
    each at once would cost more in copying than it saves.
    """

    def __init__(self, codes: Tensor, max_iterations: int) -> None:
        count, device = len(codes), codes.device
        self.codes = torch.empty_like(codes)
        self.iterations = torch.full((count,), max_iterations, device=device)
        self.converged = torch.zeros(count, dtype=torch.bool, device=device)
        self.place = torch.arange(count, device=device)
        self.held = torch.zeros(count, dtype=torch.bool, device=device)
        self.num_held = 0

    def undo_held(self, new: Tensor, codes: Tensor) -> None:
        """Undo the last step of the held samples, in place."""
        if self.num_held:
            torch.where(self.held[:, None], codes, new, out=new)

    def hold(self, done: Tensor, iteration: int, new: Tensor, codes: Tensor) -> None:
        """Hold the samples ``done``, which include all that are held already."""
        num_done = int(done.sum())
        if num_done > self.num_held:
            self.iterations[self.place[done & ~self.held]] = iteration
            self.held, self.num_held = done, num_done
            # Without a last step to extrapolate, momentum leaves them where they are.
            torch.where(done[:, None], new, codes, out=codes)

    @property
    def is_finished(self) -> bool:
        return self.num_held == len(self.held)

    @property
    def is_worth_compacting(self) -> bool:
        return self.num_held >= max(len(self.held) // 4, 8)

    def compact(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Store the held samples' codes; return the indices of those that stay and that leave."""
        kept, dropped = (~self.held).nonzero().squeeze(1), self.held.nonzero().squeeze(1)
        place = self.place[dropped]
        self.codes[place] = codes[dropped]
        self.converged[place] = True
        self.place = self.place[kept]
        self.held, self.num_held = self.held[kept], 0
        return kept, dropped

    def solution(self, codes: Tensor) -> Solution:
        """The account closed, with the codes of the samples that are still in the batch."""
        self.codes[self.place] = codes
        self.converged[self.place] = self.held
        return Solution(self.codes, self.iterations, self.converged)
