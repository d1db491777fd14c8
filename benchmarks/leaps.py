"""Whether to leap: ``python -m benchmarks.leaps [--batches 5]``.

Leaps (`sparse_lightning.solvers.leaps`) are good where one matrix tells how all samples bend, and
end in worse valleys where none does. Early in training, and with a λ that leaves hardly a code,
this prints how many iterations a sample takes to the default tolerance, and the highest of the
energies of the batches against where the paper's solver stops, relative: without leaps, with leaps
whatever the first one says, and with leaps where it says what it should. No time is measured.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from unittest import mock

from rich.console import Console

from benchmarks.kinks import to_tolerance
from benchmarks.problems import Problem, problems
from benchmarks.race import infer
from benchmarks.timing import empty_table
from sparse_lightning import FISTA
from sparse_lightning.solvers import leaps

LARGEST = 5
CASES = (
    *(("sdl_nl", steps, None) for steps in (5, 12, 30, 50, 100)),
    ("sdl_nl", 30, LARGEST),
    *(("wdl_nl", steps, None) for steps in (15, 30, 60)),
    *(("do_nl", steps, None) for steps in (45, 60, 75, 100)),
    ("none_nl", 40, LARGEST),
    ("none_nl", 80, 3),
)
RULES = {
    "without": lambda: mock.patch.object(leaps.Leaps, "begin", return_value=False),
    "in any case": lambda: mock.patch.object(leaps, "FIRST_SHARE", 0.0),
    "judged": nullcontext,
}


def row(cases: list[Problem]) -> list[str]:
    """Of the table, for one decoder."""
    paper = [case.judge(infer(case, FISTA(case.step_size, 200, 1e-3))) for case in cases]
    cells = [cases[0].name]
    for rule in RULES.values():
        with rule():
            iterations, energies = to_tolerance(cases)
        highest = max(energy / other - 1 for energy, other in zip(energies, paper))
        cells += [iterations, f"{highest:+.0e}"]
    return cells


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=5)
    arguments = parser.parse_args()
    table = empty_table(
        f"Adaptive, {arguments.batches} batches of 250 digits: iterations to the tolerance, and\n"
        "the highest energy against where the paper's solver stops, relative",
        ("problem",),
        tuple(name for rule in RULES for name in (rule, f"energy, {rule}")),
    )
    for family, steps, level in CASES:
        table.add_row(*row(problems(family, steps, arguments.batches, sparsity_level=level)))
    Console().print(table)


if __name__ == "__main__":
    main()
