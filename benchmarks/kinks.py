"""The adaptive solver on several batches, and what momentum that rests near the end is worth.

``python -m benchmarks.kinks [--families sdl_nl ...] [--steps 100] [--batches 9]``

Relu networks have kinks, on which the energy has many minima that are nearly as low as each other.
A single batch is then as much luck as speed. Over several, this prints, without the rule by which
momentum rests near the end (`sparse_lightning.solvers.adaptive`) and with it:

- the fewest iterations (of `benchmarks.race.BUDGETS`, each a run of its own at tolerance 0, in the
  second half of which the rule holds) after which the energy is no more than 1e-6 above that of
  the paper's 200 iterations, relative, in the mean over the batches;
- how many iterations a sample takes to the default tolerance, and how the rule changes the energy
  there, in the mean and at the most.

No time is measured.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from statistics import mean
from unittest import mock

from rich.console import Console
from sparse_lightning.solvers.adaptive_descent import AdaptiveDescent
from torch import Tensor

from benchmarks.problems import Problem, problems
from benchmarks.race import BUDGETS, CLOSE, infer
from benchmarks.timing import empty_table
from sparse_lightning import FISTA, Adaptive

# Without a hidden layer, or with a hinge, momentum does not rest by this rule.
FAMILIES = ("sdl_nl", "wdl_nl", "do_nl", "none_nl")


def iterations_to(cases: list[Problem], energies: list[float]) -> int | None:
    """Fewest of `BUDGETS` with which the mean relative gap is at most `CLOSE`, None if none is."""
    for budget in BUDGETS:
        solver = Adaptive(budget, 0.0)
        gaps = [
            case.judge(infer(case, solver)) / energy - 1 for case, energy in zip(cases, energies)
        ]
        if mean(gaps) <= CLOSE:
            return budget
    return None


def to_tolerance(cases: list[Problem]) -> tuple[str, list[float]]:
    """Mean iterations of a sample by default, and the energy of each batch."""
    solutions = [Adaptive()(case.bind(), case.initial) for case in cases]
    iterations = mean(float(found.iterations.double().mean()) for found in solutions)
    is_bound = "" if all(found.converged.all() for found in solutions) else "> "
    energies = [case.judge(found.codes) for case, found in zip(cases, solutions)]
    return f"{is_bound}{iterations:.1f}", energies


def without_rest() -> AbstractContextManager:
    """In which momentum only ever rests where it points uphill."""

    def never(self: AdaptiveDescent) -> Tensor:
        return self.codes.new_zeros(self.max_iterations + 1)

    return mock.patch.object(AdaptiveDescent, "make_settlings", never)


def row(cases: list[Problem]) -> list[str]:
    """Of the table, for one decoder."""
    paper = [case.judge(infer(case, FISTA(case.step_size, 200, 0.0))) for case in cases]
    iterations, energies = to_tolerance(cases)
    with without_rest():
        before, energies_before = to_tolerance(cases)
        budget_before = iterations_to(cases, paper)
    changes = [now / then - 1 for now, then in zip(energies, energies_before)]
    budgets = budget_before, iterations_to(cases, paper)
    reached = ["not reached" if budget is None else str(budget) for budget in budgets]
    changed = f"{mean(changes):+.0e}", f"{max(changes):+.0e}"
    return [cases[0].name, *reached, before, iterations, *changed]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", choices=FAMILIES, default=FAMILIES[:3])
    parser.add_argument("--steps", type=int, default=100, help="of training, beside none")
    parser.add_argument("--batches", type=int, default=9)
    arguments = parser.parse_args()
    table = empty_table(
        f"Adaptive, {arguments.batches} batches of 250 digits: iterations\n"
        "to the paper's energy (A) and of a sample to the tolerance (B), without and with the rule",
        ("problem",),
        ("A, without", "A, with", "B, without", "B, with", "energy, relative", "at most"),
    )
    for family in arguments.families:
        for steps in sorted({0, arguments.steps}):
            table.add_row(*row(problems(family, steps, arguments.batches)))
    Console().print(table)


if __name__ == "__main__":
    main()
