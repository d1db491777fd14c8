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


def looks_every(device: torch.device) -> int:
    """How many iterations pass between two looks of the host at who has converged.

    An accelerator runs ahead of the host until the host asks it for a number. On the CPU asking is
    free, and a batch is best compacted at once.
    """
    return 1 if device.type == "cpu" else 10


class ShrinkingBatch:
    """Keeps the account of which samples still move, and where each belongs in the solution.

    A converged sample is held where it is, from the iteration on at which it converged; how many
    are held is looked at every so many iterations (`looks_every`), which changes no result. Once
    enough are held, they leave the batch; dropping each at once would cost more in copying than it
    saves.
    """

    def __init__(self, codes: Tensor, max_iterations: int) -> None:
        count, device = len(codes), codes.device
        self.looks_every = looks_every(device)
        self.codes = torch.empty_like(codes)
        self.iterations = torch.full((count,), max_iterations, device=device)
        self.converged = torch.zeros(count, dtype=torch.bool, device=device)
        # Of the samples that are still in the batch:
        self.place = torch.arange(count, device=device)
        self.held = torch.zeros(count, dtype=torch.bool, device=device)
        self.ended = self.iterations.clone()
        self.num_held = 0

    def undo_held(self, new: Tensor, codes: Tensor) -> None:
        """Undo the last step of the held samples, in place."""
        if self.num_held or self.looks_every > 1:
            torch.where(self.held[:, None], codes, new, out=new)

    def hold(self, done: Tensor, iteration: int, new: Tensor, codes: Tensor) -> None:
        """Hold the samples ``done``, which include all that are held already."""
        num_held = self.num_held
        if iteration % self.looks_every == 0:
            self.num_held = int(done.sum())
            if self.looks_every == 1 and self.num_held == num_held:
                return
        self.ended.masked_fill_(done & ~self.held, iteration)
        self.held = done
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
        self.codes[place], self.iterations[place] = codes[dropped], self.ended[dropped]
        self.converged[place] = True
        self.place, self.ended = self.place[kept], self.ended[kept]
        self.held, self.num_held = self.held[kept], 0
        return kept, dropped

    def solution(self, codes: Tensor) -> Solution:
        """The account closed, with the codes of the samples that are still in the batch."""
        self.codes[self.place], self.iterations[self.place] = codes, self.ended
        self.converged[self.place] = self.held
        return Solution(self.codes, self.iterations, self.converged)
