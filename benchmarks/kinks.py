"""The adaptive solver on several batches, and what momentum that rests near the end is worth.

``python -m benchmarks.kinks [--families sdl_nl ...] [--steps 100] [--batches 9]``

Relu networks have kinks, on which the energy has many minima that are nearly as low as each other.
A single batch is then as much luck as speed. Over several, this prints after how many iterations
the adaptive solver is within 1e-6 of the energy of the paper's 200 iterations in the mean; and how
many iterations a sample takes to the default tolerance, with the rule by which momentum rests
(`sparse_lightning.solvers.adaptive`) and without it, at what change of the energy. No time is
measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean
from unittest import mock

from rich.console import Console
from torch import Tensor

from benchmarks.problems import Problem, problems
from benchmarks.race import BUDGETS, CLOSE, infer
from benchmarks.timing import empty_table
from sparse_lightning import FISTA, Adaptive
from sparse_lightning.solvers.adaptive_descent import AdaptiveDescent

FAMILIES = ("sdl_nl", "wdl_nl", "do_nl")


def iterations_to(cases: list[Problem], energies: list[float]) -> int | None:
    """Fewest of `BUDGETS` with which the mean relative gap is within `CLOSE`, None if none is."""
    for budget in BUDGETS:
        solver = Adaptive(budget, 0.0)
        gaps = [
            case.judge(infer(case, solver)) / energy - 1 for case, energy in zip(cases, energies)
        ]
        if mean(gaps) <= CLOSE:
            return budget
    return None


def to_tolerance(cases: list[Problem]) -> tuple[float, list[float]]:
    """Mean iterations of a sample by default, and the energy of each batch."""
    solutions = [Adaptive()(case.bind(), case.initial) for case in cases]
    iterations = mean(float(found.iterations.double().mean()) for found in solutions)
    return iterations, [case.judge(found.codes) for case, found in zip(cases, solutions)]


def without_rest() -> mock._patch[Callable[[AdaptiveDescent], Tensor]]:
    """A context in which momentum only ever rests where it points uphill."""
    never = lambda self: self.codes.new_zeros(self.max_iterations + 1)  # noqa: E731
    return mock.patch.object(AdaptiveDescent, "make_settlings", never)


def row(cases: list[Problem]) -> list[str]:
    """Of the table, for one decoder."""
    paper = [case.judge(infer(case, FISTA(case.step_size, 200, 0.0))) for case in cases]
    iterations, energies = to_tolerance(cases)
    with without_rest():
        before, energies_before = to_tolerance(cases)
        budget_before = iterations_to(cases, paper)
    change = mean(now / then - 1 for now, then in zip(energies, energies_before))
    budgets = budget_before, iterations_to(cases, paper)
    reached = ["not reached" if budget is None else str(budget) for budget in budgets]
    return [cases[0].name, *reached, f"{before:.1f}", f"{iterations:.1f}", f"{change:+.0e}"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--steps", type=int, default=100, help="of training, beside none")
    parser.add_argument("--batches", type=int, default=9)
    arguments = parser.parse_args()
    table = empty_table(
        f"Adaptive, {arguments.batches} batches of 250 digits: iterations",
        ("problem",),
        (
            "to the paper's energy, without rest",
            "with it",
            "to the tolerance, without rest",
            "with it ",
            "change of the energy, relative",
        ),
    )
    for family in arguments.families:
        for steps in (0, arguments.steps):
            table.add_row(*row(problems(family, steps, arguments.batches)))
    Console().print(table)


if __name__ == "__main__":
    main()
