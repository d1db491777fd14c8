"""How the codes of a batch were found, and whether inference ended where it should.

Inference lowers the energy. Where it ends at twice the energy of its start, and rebuilds the batch
worse than nothing would, it has diverged: the step was too large, or weights are lost.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sparse_lightning.datafits import mean_squares
from sparse_lightning.distributed import Processes
from sparse_lightning.energy import Objective
from sparse_lightning.errors import DivergenceError
from sparse_lightning.solvers import Solution, Solver


class Inference(NamedTuple):
    """How the codes of a batch, or of this process's part of it, were found.

    Attributes:
        objective: what was minimised.
        initial: codes (n, l) that inference began from.
        solution: what it found.
    """

    objective: Objective
    initial: Tensor
    solution: Solution


def require_descent(
    inputs: Tensor,
    objective: Objective,
    initial: Tensor,
    terms: dict[str, Tensor],
    solver: Solver,
    where: str,
    processes: Processes | None = None,
) -> None:
    """Raise unless inference ended in the region of its start.

    Processes that share the batch raise together, so that none waits for one that has stopped.

    Args:
        inputs: (n, d), in float32 or better.
        objective: what was minimised.
        initial: codes (n, l) that inference began from.
        terms: of the energy, at the codes that inference ended at.
        solver: what minimised it.
        where: which batch this is, in words.
        processes: those that share the batch.

    Raises:
        DivergenceError: inference has left the region of its start, or its start is no number.
    """
    # The cheap test first: codes that rebuild the batch better than nothing did not explode.
    holds = bool(terms["reconstruction"] <= mean_squares(inputs).sum())
    holds = holds or bool(sum(terms.values()) <= 2 * objective.alone().value(initial))
    if processes is not None:
        holds = processes.agree(holds, initial.device)
    if holds:
        return
    if not initial.isfinite().all():
        raise DivergenceError(
            f"The encoder's codes are no finite numbers at {where}: start again with a smaller "
            "model.optimizer.encoder_learning_rate."
        )
    raise DivergenceError(f"Inference diverged at {where}: {solver.divergence_hint}.")
