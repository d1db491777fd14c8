"""One inference under way: the samples that still move, and the account of those that do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from sparse_lightning.smooth import Outlook, Quadratic
from sparse_lightning.solvers.recording import Recording
from sparse_lightning.solvers.solution import Solution

# Numbers in a batch of codes below which an accelerator is as fast with more of them.
FILLS_AN_ACCELERATOR = 2**20


class ProximalObjective(Protocol):
    r"""A smooth function plus :math:`\lambda\|z\|_1, z \ge 0`, over a batch of codes (n, l)."""

    quadratic: Quadratic | None
    is_recordable: bool
    sparsity_weight: float

    def gradient(self, codes: Tensor, out: Tensor | None = None) -> Tensor: ...

    def shrink(self, codes: Tensor, step_size: float, out: Tensor | None = None) -> Tensor: ...

    def restrict(self, rows: Tensor, held_codes: Tensor) -> ProximalObjective: ...

    def prepared_for(self, outlook: Outlook) -> ProximalObjective: ...

    def agree(self, holds: bool) -> bool: ...


def looks_every(device: torch.device) -> int:
    """How many iterations pass between two looks of the host at who has converged.

    An accelerator runs ahead of the host until the host asks it for a number. On the CPU asking is
    free, and a batch is best compacted at once.
    """
    return 1 if device.type == "cpu" else 10


class Descent(ABC):
    """Iterations over torch's operations, for any objective on any device.

    A converged sample is held where it is, from the iteration on at which it converged; how many
    are held is looked at every so many iterations (`looks_every`), which changes no result. Once
    enough are held they leave the batch; dropping each at once would cost more in copying than it
    saves. Between looks nothing is asked of the device, and where it is a CUDA device and the
    objective allows it, the iterations are recorded and replayed.

    Attributes:
        objective: of the samples that are still in the batch.
        codes, point: (n, l), the last codes and those that they are extrapolated to.
        iteration: (1,), on the device.
        taken: iterations up to the host's last look.
    """

    def __init__(
        self,
        objective: ProximalObjective,
        initial_codes: Tensor,
        max_iterations: int,
        tolerance: float,
    ) -> None:
        count, device = len(initial_codes), initial_codes.device
        self.objective = objective
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.found = Solution(
            torch.empty_like(initial_codes),
            torch.full((count,), max_iterations, device=device),
            torch.zeros(count, dtype=torch.bool, device=device),
        )
        # Of the samples that are still in the batch:
        self.codes = initial_codes.clone(memory_format=torch.contiguous_format)
        self.point, self.spare = self.codes.clone(), torch.empty_like(self.codes)
        self.place = torch.arange(count, device=device)
        self.held = torch.zeros(count, dtype=torch.bool, device=device)
        self.ended = self.found.iterations.clone()
        self.iteration = torch.zeros(1, dtype=torch.int64, device=device)
        self.outlook = Outlook(max_iterations, self.codes, self.point, tolerance == 0)
        self.start_at(0)

    def start_at(self, taken: int) -> None:
        """Count the iterations from there."""
        self.first = self.taken = taken
        self.iteration.fill_(taken)

    @abstractmethod
    def advance(self, iteration: int) -> None:
        """Take one iteration, the ``iteration``-th.

        Of its number no more may be used than whether it is a multiple of ten.
        """

    @abstractmethod
    def parts(self) -> list[object]:
        """The objects whose tensors an iteration sets."""

    def prepared(self) -> None:  # noqa: B027
        """Do what has to be done when the objective goes on in another form."""

    def run(self) -> Solution:
        """All iterations, until all samples have converged or the limit is reached."""
        every = looks_every(self.codes.device)
        block = self._block(every)
        while self.taken < self.max_iterations:
            left = self.max_iterations - self.taken
            if every <= left:
                block()
            else:
                self._advance(left)
            self.taken += every
            num_held = int(self.held.sum()) if self.tolerance > 0 else 0
            is_finished = num_held == len(self.held)
            if self.objective.agree(is_finished):
                break
            if self._is_worth_compacting(num_held) and not is_finished:
                self._compact()
                block = self._block(every)
            if self.taken < self.max_iterations:
                self.outlook.tell(self._ahead(), self.codes, self.point)
                prepared = self.objective.prepared_for(self.outlook)
                if prepared is not self.objective:
                    self.objective, block = prepared, self._block(every)
                    self.prepared()
        self._store(self.codes, slice(None))
        return self.found

    def _ahead(self) -> int:
        """How many iterations are still to come, as far as one can tell."""
        left = self.max_iterations - self.taken
        # Samples that are not done by now may take as many again.
        return left if self.tolerance == 0 else min(self.taken - self.first, left)

    def _advance(self, count: int) -> None:
        for iteration in range(self.taken + 1, self.taken + count + 1):
            self.iteration += 1
            self.advance(iteration)

    def _block(self, count: int) -> Recording:
        device = self.codes.device if self.objective.is_recordable else torch.device("cpu")
        return Recording(lambda: self._advance(count), self.parts(), device)

    def keep_held(self, new: Tensor) -> None:
        """Undo the last step of the held samples, in place."""
        torch.where(self.held[:, None], self.codes, new, out=new)

    def hold(self, done: Tensor, new: Tensor) -> None:
        """Hold the samples ``done``, which include all that are held, at their new codes."""
        self.ended = torch.where(done & ~self.held, self.iteration, self.ended)
        self.held = done
        # Without a last step to extrapolate, momentum leaves them where they are.
        torch.where(done[:, None], new, self.codes, out=self.codes)

    def _is_worth_compacting(self, num_held: int) -> bool:
        if self.codes.device.type == "cpu":
            return num_held >= max(len(self.held) // 4, 8)
        return num_held >= len(self.held) // 2 and self.codes.numel() >= FILLS_AN_ACCELERATOR

    def _compact(self) -> None:
        """Store the held samples' codes and go on with the others."""
        kept, dropped = (~self.held).nonzero().squeeze(1), self.held.nonzero().squeeze(1)
        self._store(self.codes[dropped], dropped)
        self.objective = self.objective.restrict(kept, self.codes[dropped])
        self.restrict(kept)

    def restrict(self, rows: Tensor) -> None:
        """Go on with the samples ``rows``."""
        for name in ("codes", "point", "spare", "place", "held", "ended"):
            setattr(self, name, getattr(self, name)[rows])

    def _store(self, codes: Tensor, rows: Tensor | slice) -> None:
        place = self.place[rows]
        self.found.codes[place] = codes
        self.found.iterations[place] = self.ended[rows]
        self.found.converged[place] = self.held[rows]
