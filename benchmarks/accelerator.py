"""Where the time of an inference goes on an accelerator: ``python -m benchmarks.accelerator``.

The paper's solver and the adaptive one, each at its own tolerance and the paper's at 200
iterations too, with each iteration asked for by the host and with iterations recorded and replayed
(`sparse_lightning.solvers.recording`). The device's own time is the sum over its kernels; what is
more than that is the host asking for them, waiting for an answer, and recording.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from rich.console import Console
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.problems import Problem, problem
from benchmarks.timing import empty_table, finish, machine, medians
from sparse_lightning import FISTA, Adaptive
from sparse_lightning.energy import ActiveObjective

FAMILIES = ("sdl", "vdl", "sdl_nl", "vdl_nl")


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Each iteration is asked for by the host."""
    allowed = ActiveObjective.is_recordable
    ActiveObjective.is_recordable = property(lambda objective: False)
    try:
        yield
    finally:
        ActiveObjective.is_recordable = allowed


def infer(case: Problem, solver: FISTA | Adaptive) -> Tensor:
    return solver(case.bind(), case.initial).codes


def plainly(case: Problem, solver: FISTA | Adaptive) -> Tensor:
    with nothing_recorded():
        return infer(case, solver)


def kernels(run: Callable[[], object]) -> tuple[int, float]:
    """How many operations the device did, and its milliseconds."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        finish()
    on_device = torch.autograd.DeviceType.CUDA
    events = [event for event in profiler.events() if event.device_type == on_device]
    return len(events), sum(event.device_time for event in events) / 1e3


def row(case: Problem, name: str, solver: FISTA | Adaptive, repeats: int) -> list[str]:
    """One row of the table."""
    runs = {"plain": partial(plainly, case, solver), "recorded": partial(infer, case, solver)}
    energies = {run: case.judge(runs[run]()) for run in runs}
    seconds = medians(runs, repeats)
    count, device = kernels(runs["plain"])
    iterations = solver(case.bind(), case.initial).iterations.float()
    return [
        case.name,
        name,
        f"{iterations.mean():.0f} ({iterations.max():.0f})",
        f"{1e3 * seconds['plain']:.1f}",
        f"{1e3 * seconds['recorded']:.1f}",
        f"{seconds['plain'] / seconds['recorded']:.1f}",
        f"{count:,}",
        f"{device:.1f}",
        f"{energies['recorded'] / energies['plain'] - 1:.0e}",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--steps", type=int, default=100, help="of training")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    table = empty_table(
        f"Inference of 250 digits\n{machine(arguments.device)}",
        ("problem", "solver"),
        (
            *("iterations (most)", "plain (ms)", "recorded (ms)", "times faster", "kernels"),
            *("of the device (ms)", "energy, relative difference"),
        ),
    )
    for family in arguments.families:
        case = problem(family, arguments.steps).to(arguments.device)
        solvers = {
            "paper, 200 iterations": FISTA(case.step_size, 200, 0.0),
            "paper": FISTA(case.step_size, 200, 1e-3),
            "adaptive": Adaptive(),
        }
        for name, solver in solvers.items():
            table.add_row(*row(case, name, solver, arguments.repeats))
    Console().print(table)


if __name__ == "__main__":
    main()
