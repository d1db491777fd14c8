"""Energy against time: the adaptive solver and the paper's, before and after learning.

``python -m benchmarks.race [--families sdl ...] [--steps 200] [--folder docs/images]``

Each solver is run with growing numbers of iterations, tolerance 0, and judged from outside, in
float64 (`benchmarks.problems`). Two questions are answered per problem, with the paper's solver
as the unit: how long the adaptive solver takes to the energy that the paper's reaches in 200
iterations, and to that at which it stops by its tolerance (1e-3). An energy counts as reached
within 1e-6 of it, relative. Writes ``race.csv`` and ``race.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from benchmarks.problems import Problem, problem
from benchmarks.timing import empty_table, label_milliseconds, machine, medians
from sparse_lightning import FISTA, Adaptive
from sparse_lightning.files import replaced_whole, write_figure

FAMILIES = ("sdl", "vdl", "do", "wdl", "sdl_nl", "vdl_nl", "do_nl", "wdl_nl")
BUDGETS = (*range(1, 11), *range(12, 31, 2), 35, 40, 45, 50, 65, 80, 100, 140, 200)
CLOSE = 1e-6


def infer(case: Problem, solver: FISTA | Adaptive) -> Tensor:
    """What is timed: binding and inference."""
    return solver(case.bind(), case.initial).codes


def budget_to_reach(case: Problem, energy: float) -> int | None:
    """Fewest iterations of the adaptive solver, of `BUDGETS`, that reach an energy."""
    for budget in BUDGETS:
        if case.judge(infer(case, Adaptive(budget, 0.0))) <= energy * (1 + CLOSE):
            return budget
    return None


def race(case: Problem, repeats: int) -> dict[str, object]:
    """One row: the paper's times, and what part of them the adaptive solver takes."""
    paper = {
        "200 iterations": FISTA(case.step_size, 200, 0.0),
        "tolerance": FISTA(case.step_size, 200, 1e-3),
    }
    runners: dict[str, Callable[[], object]] = {}
    row: dict[str, object] = {"problem": case.name}
    for name, solver in paper.items():
        energy = case.judge(infer(case, solver))
        budget = budget_to_reach(case, energy)
        row[f"energy, {name}"], row[f"adaptive iterations, {name}"] = energy, budget
        runners[f"paper, {name}"] = partial(infer, case, solver)
        if budget is not None:
            runners[f"adaptive, {name}"] = partial(infer, case, Adaptive(budget, 0.0))
    row["energy, adaptive"] = case.judge(infer(case, Adaptive()))
    seconds = medians(runners, repeats)
    row |= {f"seconds, {name}": value for name, value in seconds.items()}
    for name in paper:
        if f"adaptive, {name}" in seconds:
            row[f"ratio, {name}"] = seconds[f"adaptive, {name}"] / seconds[f"paper, {name}"]
    return row


def curves(case: Problem) -> Iterator[dict[str, object]]:
    """Energy and time of both solvers at growing numbers of iterations, all timed in turn."""
    solvers = {
        (name, budget): make(max_iterations=budget, tolerance=0.0)
        for name, make in (("paper", partial(FISTA, case.step_size)), ("adaptive", Adaptive))
        for budget in BUDGETS
    }
    seconds = medians({key: partial(infer, case, solvers[key]) for key in solvers}, 5)
    for (name, budget), solver in solvers.items():
        yield {
            "problem": case.name,
            "solver": name,
            "iterations": budget,
            "seconds": seconds[name, budget],
            "energy": case.judge(infer(case, solver)),
        }


def draw(table: pd.DataFrame) -> Figure:
    """Relative gap to the lowest energy seen against milliseconds, one panel per problem."""
    problems = list(dict.fromkeys(table["problem"]))
    columns = min(4, len(problems))
    rows = -(-len(problems) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(problems) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, problems):
        part = table[table["problem"] == name]
        lowest = part["energy"].min()
        for solver, curve in part.groupby("solver", sort=False):
            gap = (curve["energy"] / lowest - 1).clip(lower=1e-8)
            axis.loglog(1e3 * curve["seconds"], gap, marker=".", label=solver)
        axis.set(title=name, ylim=(5e-9, None))
        label_milliseconds(axis)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("milliseconds")
    for axis in axes[:, 0]:
        axis.set_ylabel("energy above the lowest,\nrelative (floor 1e-8)")
    axes[0, 0].legend()
    figure.suptitle(f"Inference of one batch of 250 digits, {machine()}")
    return figure


def show(rows: list[dict[str, object]], device: str) -> None:
    """Print the ratios."""
    table = empty_table(
        f"Adaptive, time to the energy of the paper's solver (= 1)\n{machine(device)}",
        ("problem",),
        (
            *("to its 200 iterations", "iterations", "to its tolerance", "iterations "),
            "final energy, relative",
        ),
    )
    for row in rows:
        cells = [row["problem"]]
        for name in ("200 iterations", "tolerance"):
            ratio, budget = row.get(f"ratio, {name}"), row[f"adaptive iterations, {name}"]
            cells += ["not reached" if ratio is None else f"{ratio:.2f}", str(budget)]
        final = row["energy, adaptive"] / row["energy, tolerance"] - 1
        table.add_row(*cells, f"{final:+.1e}")
    Console().print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--steps", type=int, default=200, help="of training, beside none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=None, help="for race.csv and race.png")
    arguments = parser.parse_args()
    rows, points = [], []
    for family in arguments.families:
        for steps in (0, arguments.steps):
            case = problem(family, steps).to(arguments.device)
            rows.append(race(case, arguments.repeats))
            show(rows[-1:], arguments.device)
            if arguments.folder is not None:
                points += curves(case)
    show(rows, arguments.device)
    if arguments.folder is not None:
        with replaced_whole(arguments.folder / "race.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        write_figure(draw(pd.DataFrame(points)), arguments.folder / "race.png")


if __name__ == "__main__":
    main()
