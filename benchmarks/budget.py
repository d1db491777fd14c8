"""Training for the same seconds with the paper's solver and the adaptive one, side by side.

``python -m benchmarks.budget [--seconds 240] [--seeds 0 1] [--folder docs/images]`` trains each
family on MNIST with both solvers at the same time, each in a process of one thread, and compares
what the encoder reaches on validation digits: PSNR, zeros and energy against seconds of training.
A fifth of an epoch passes between looks. Writes ``budget.png``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.problems import settings
from benchmarks.timing import machine
from sparse_lightning.files import write_figure

FAMILIES = ("vdl", "sdl_nl", "vdl_nl")
SOLVERS = ("paper", "adaptive")
LOOKS = 5  # in an epoch of 220 steps
SHOWN = {"val/psnr": "PSNR (dB)", "val/zeros": "zeros", "val/energy": "energy"}


def command(family: str, solver: str, seconds: int, seed: int, folder: Path) -> list[str]:
    """A training of which an epoch, to Lightning, is a fifth of one."""
    optimizer = settings(family).model.optimizer
    slower = [
        f"model.optimizer.{name}={LOOKS * optimizer[name]}"
        for name in optimizer
        if name.endswith("decay_epochs") and optimizer[name]
    ]
    return [
        *(sys.executable, "-m", "sparse_lightning.train", f"model={family}", f"solver={solver}"),
        *("trainer=cpu", "trainer.max_epochs=100000", f"trainer.max_time={{seconds:{seconds}}}"),
        *(f"trainer.limit_train_batches={220 // LOOKS}", "trainer.enable_progress_bar=false"),
        *(f"seed={seed}", "logger=none", "~callbacks.figures", f"hydra.run.dir='{folder}'"),
        *slower,
    ]


def train(family: str, seconds: int, seed: int, folder: Path) -> pd.DataFrame:
    """One row per look of both solvers, whose processes run at the same time."""
    threads = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running = {
        solver: subprocess.Popen(
            command(family, solver, seconds, seed, folder / solver),
            env=threads,
            stdout=subprocess.DEVNULL,
        )
        for solver in SOLVERS
    }
    tables = []
    for solver, process in running.items():
        if process.wait() != 0:
            raise SystemExit(f"{family} with solver={solver} failed.")
        rows = pd.read_csv(folder / solver / "metrics.csv").dropna(subset=["val/psnr"])
        rows = rows.assign(elapsed=rows["seconds"].cumsum(), epochs=(rows["epoch"] + 1) / LOOKS)
        tables.append(rows.assign(family=family, solver=solver, seed=seed))
    kept = ["family", "solver", "seed", "elapsed", "epochs", "train/iterations", *SHOWN]
    return pd.concat(tables, ignore_index=True)[kept]


def seconds_to(curve: pd.DataFrame, energy: float) -> float:
    """When a curve first has an energy, NaN for never."""
    return curve.loc[curve["val/energy"] <= energy, "elapsed"].min()


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """The last look of each training, and when the adaptive one had the paper's last energy."""
    rows = []
    for _, part in points.groupby(["family", "seed"], sort=False):
        curves = {solver: curve for solver, curve in part.groupby("solver", sort=False)}
        last = curves["paper"].iloc[-1]
        for curve in curves.values():
            reached = seconds_to(curve, last["val/energy"])
            rows.append(curve.iloc[-1].to_dict() | {"part": reached / last["elapsed"]})
    return pd.DataFrame(rows)


def draw(points: pd.DataFrame) -> Figure:
    """PSNR and zeros against seconds, a column per family."""
    families = list(points["family"].unique())
    shown = ("val/psnr", "val/zeros")
    figure, axes = plt.subplots(
        2, len(families), figsize=(3.6 * len(families), 5.4), layout="constrained", squeeze=False
    )
    colors = dict(zip(SOLVERS, ("C0", "C1")))
    for column, family in enumerate(families):
        part = points[points["family"] == family]
        for axis, name in zip(axes[:, column], shown):
            for (solver, seed), curve in part.groupby(["solver", "seed"], sort=False):
                label = f"solver={solver}" if seed == part["seed"].iloc[0] else None
                axis.plot(curve["elapsed"], curve[name], color=colors[solver], label=label)
            axis.set(xlabel="seconds of training", ylabel=f"validation {SHOWN[name]}")
            axis.grid(alpha=0.3)
        axes[0, column].set_title(family.upper().replace("_", "-"))
    axes[0, 0].legend()
    figure.suptitle(f"The encoder's codes on MNIST; one thread each; {machine()}", fontsize=10)
    return figure


def show(table: pd.DataFrame) -> None:
    """Print the summary."""
    printed = Table(title=f"After the same seconds of training\n{machine()}")
    headings = ("PSNR", "zeros", "energy", "epochs", "iterations", "to the paper's energy")
    for heading in ("family", "solver", "seed", *headings):
        printed.add_column(heading, justify="left" if heading == "family" else "right")
    for row in table.to_dict("records"):
        printed.add_row(
            *(row["family"], row["solver"], str(row["seed"])),
            *(f"{row['val/psnr']:.2f}", f"{row['val/zeros']:.3f}", f"{row['val/energy']:.4f}"),
            *(f"{row['epochs']:.1f}", f"{row['train/iterations']:.1f}", f"{row['part']:.2f}"),
        )
    Console(width=120).print(printed)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--folder", type=Path, default=None, help="for budget.png")
    arguments = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as name:
        for family in arguments.families:
            for seed in arguments.seeds:
                folder = Path(name) / family / str(seed)
                tables.append(train(family, arguments.seconds, seed, folder))
                show(summary(tables[-1]))
    points = pd.concat(tables, ignore_index=True)
    show(summary(points))
    if arguments.folder is not None:
        write_figure(draw(points), arguments.folder / "budget.png")


if __name__ == "__main__":
    main()
