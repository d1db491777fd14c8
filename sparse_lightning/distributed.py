"""Several processes that share one mini-batch.

Each process has a part of the batch, and the variance hinge needs the moments of the whole batch.
All processes must ask for the moments equally often, or they wait for each other for ever. So a
process whose samples have converged continues until all processes are done (`Processes.agree`).
"""

from __future__ import annotations

import torch
import torch.distributed as distributed
from torch import Tensor

from sparse_lightning.variance import Moments


class Processes:
    """The processes of torch's default group."""

    @classmethod
    def present(cls) -> Processes | None:
        """The processes that train this model together, None where there is only this one."""
        if distributed.is_available() and distributed.is_initialized():
            return cls() if distributed.get_world_size() > 1 else None
        return None

    def merge(self, moments: Moments) -> Moments:
        """The moments of all parts of the batch, equal to the last bit in every process."""
        mine = torch.stack(
            (
                moments.mean.new_full((), moments.count).expand_as(moments.mean),
                moments.mean,
                moments.scatter,
            )
        )
        parts = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, mine.contiguous())
        whole = None
        for count, mean, scatter in parts:
            whole = Moments(int(count[0]), mean, scatter).merge(whole)
        return whole

    def total(self, part: Tensor) -> Tensor:
        """The sum over all processes, equal to the last bit in each."""
        whole = part.clone()
        distributed.all_reduce(whole)
        return whole

    def gather(self, part: Tensor) -> Tensor:
        """What each process has a part of, equal in shape, in one tensor along the first axis."""
        parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def agree(self, holds: bool, device: torch.device) -> bool:
        """Whether something holds in every process."""
        votes = torch.tensor(int(holds), device=device)
        distributed.all_reduce(votes, op=distributed.ReduceOp.MIN)
        return bool(votes)
