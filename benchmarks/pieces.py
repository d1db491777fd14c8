"""What pieces live on: how few hidden units switch, and what an iteration then takes.

``python -m benchmarks.pieces`` takes 200 iterations of the paper's solver, tolerance 0, on 250
digits, with pieces (`sparse_lightning.pieces`) and with the network throughout. Over some of the
iterations it prints how many units of a sample switch from one to the next, how many different ones
do until the end, and the median time of an iteration.
"""

from __future__ import annotations

import math
import time
from statistics import median
from unittest import mock

import torch
from rich.console import Console
from sparse_lightning.pieces import cost
from sparse_lightning.solvers.constant import CompiledDescent, fista_momenta
from torch import Tensor

from benchmarks.problems import Problem, problem
from benchmarks.timing import empty_table, machine
from sparse_lightning import FISTA

ITERATIONS = 200
WINDOWS = ((11, 20), (41, 60), (101, 200))
PROBLEMS = (("sdl_nl", 0), ("sdl_nl", 200), ("vdl_nl", 0))


class Watched(CompiledDescent):
    """An inference that keeps the points of its gradients and the time of each iteration."""

    def __init__(self, case: Problem) -> None:
        solver = FISTA(case.step_size, ITERATIONS, 0.0)
        super().__init__(solver, case.bind(), case.initial, fista_momenta(ITERATIONS))
        self.points: list[Tensor] = []
        self.seconds: list[float] = []

    def parts(self) -> list[object]:
        return []

    def advance(self, iteration: int) -> None:
        self.points.append(self.point.clone())
        start = time.perf_counter()
        super().advance(iteration)
        self.seconds.append(time.perf_counter() - start)


@torch.no_grad()
def watch(case: Problem) -> Watched:
    """The second of two runs, since the first may compile."""
    for _ in range(2):
        watched = Watched(case)
        watched.run()
    return watched


def rows(case: Problem) -> list[list[str]]:
    """One row of the table for each window."""
    pieces = watch(case)
    with mock.patch.object(cost, "LEAST_IN_COMMON", math.inf):
        network = watch(case)
    layer = case.decoder.hidden[0]
    with torch.no_grad():
        active = torch.stack([layer(point) > 0 for point in network.points])
    switches = active[1:] ^ active[:-1]
    printed = []
    for first, last in WINDOWS:
        window = slice(first - 1, last)
        printed.append(
            [
                case.name,
                f"{first} to {last}",
                f"{float(switches[first - 2 : last - 1].sum(2).double().mean()):.1f}",
                f"{float(switches[first - 2 :].any(0).sum(1).double().mean()):.0f}",
                f"{float((network.points[last - 1] != 0).sum(1).double().mean()):.0f}",
                f"{1e3 * median(network.seconds[window]):.2f}",
                f"{1e3 * median(pieces.seconds[window]):.2f}",
            ]
        )
    return printed


def main() -> None:
    """Command line."""
    table = empty_table(
        f"Iterations of the paper's solver, batch 250, per sample\n{machine()}",
        ("problem", "iterations"),
        ("units that switch", "different ones to the end", "active atoms", "network (ms)", "ms"),
    )
    for family, steps in PROBLEMS:
        for row in rows(problem(family, steps)):
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
