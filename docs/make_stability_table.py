"""Print what solvers do at the weights of a long training of VDL-NL, checkpoint by checkpoint.

    python docs/make_stability_table.py runs/paper_step_0.01 --epochs 10 20 50

The folder is that of a run as for ``docs/make_stability_figure.py``. Each solver is given equal
objectives: those of two batches of 250 training digits, from the encoder's prediction. For each the
table has iterations per sample, the share of samples converged, and the energy, in float64, over
the least of all solvers less 1. A solver that leaves the region of its start has ``diverges``.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from make_stability_figure import largest_curvature
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sparse_lightning import FISTA, Adaptive, SparseAutoencoder
from sparse_lightning.experiments.runs import Run
from sparse_lightning.solvers.base import Solver

BATCH, NUM_BATCHES = 250, 2


@dataclass(frozen=True)
class Alone(FISTA):
    """FISTA that leaves no batch to `Adaptive`: a sample's step is 1/L where it must be."""


@dataclass(frozen=True)
class Restarted(FISTA):
    """FISTA whose momentum begins anew where it points uphill (O'Donoghue & Candès 2015)."""

    restarts: ClassVar[bool] = True


def candidates(step_size: float, curvature: float) -> dict[str, Solver]:
    """Solvers by the names of columns; ``curvature`` is the largest L of all samples."""
    stable = min(step_size, 1 / curvature) if curvature * step_size > 4 / 3 else step_size
    return {
        "literal": FISTA(step_size, safeguard=False),
        "safeguarded": FISTA(step_size),
        "1/L for a sample": Alone(step_size),
        "restarts": Restarted(step_size),
        "1/L for all": FISTA(stable, safeguard=False),
        "adaptive": Adaptive(),
    }


@torch.no_grad()
def judged(model: SparseAutoencoder, batches: list[Tensor], solver: Solver) -> tuple[float, ...]:
    """Mean iterations, share converged, and mean energy of a sample's codes."""
    exact = copy.deepcopy(model.decoder).double()
    iterations, converged, energy = [], [], 0.0
    for inputs in batches:
        prediction = model.predict_codes(inputs)
        objective = model.energy.bind(model.decoder, inputs, prediction)
        solution = solver(objective, prediction)
        judge = model.energy.bind(exact, inputs.double(), prediction.double())
        energy += float(judge.value(solution.codes.double())) / len(inputs) / len(batches)
        iterations.append(solution.iterations.double())
        converged.append(solution.converged.double())
    return float(torch.cat(iterations).mean()), float(torch.cat(converged).mean()), energy


def row(model: SparseAutoencoder, batches: list[Tensor], step_size: float) -> dict[str, str]:
    """One line of the table, by its columns."""
    curvature = largest_curvature(model, torch.cat(batches))
    solvers = candidates(step_size, float(curvature.max()))
    found = {name: judged(model, batches, solver) for name, solver in solvers.items()}
    least = min(energy for *_, energy in found.values() if energy == energy)
    cells = {"L, mean and maximum": f"{float(curvature.mean()):.1f}, {float(curvature.max()):.1f}"}
    for name, (iterations, converged, energy) in found.items():
        excess = f"{energy / least - 1:.0e}" if energy < 2 * least else "diverges"
        cells[name] = f"{iterations:.1f}, {converged:.3f}, {excess}"
    return cells


def checkpoints(folder: Path, keeps: Callable[[int], bool]) -> list[tuple[int, Path]]:
    """Finished epochs, from 1, and their files."""
    found = [(int(re.search(r"\d+", path.stem)[0]) + 1, path) for path in folder.glob("*.ckpt")]
    return sorted((epoch, path) for epoch, path in found if keeps(epoch))


def main() -> None:
    """Print the table."""
    known = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known.add_argument("run", type=Path)
    known.add_argument("--epochs", type=int, nargs="*", help="all that are kept, without it")
    given = known.parse_args()
    run = Run(given.run)
    data = run.data()
    data.prepare_data()
    data.setup()
    batches = list(data.splits["train"].tensors.inputs[: NUM_BATCHES * BATCH].split(BATCH))
    table = Table(title=f"λ = {run.config.model.energy.sparsity_weight:g}")
    for epoch, path in checkpoints(
        run.folder / "every", lambda epoch: not given.epochs or epoch in given.epochs
    ):
        model = SparseAutoencoder.load_from_checkpoint(path).eval()
        cells = row(model, batches, run.config.solver.step_size)
        if not table.columns:
            for heading in ("epoch", *cells):
                table.add_column(heading, justify="right")
        table.add_row(str(epoch), *cells.values())
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
