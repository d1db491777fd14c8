"""An epoch of every family, as the command line trains it: ``python -m benchmarks.epoch``.

Each measurement is a process of ``python -m sparse_lightning.train``, with the preset's solver or
the adaptive one, that lasts for several epochs. The first epoch compiles and is left out. The time
of the later ones is ``seconds`` of ``metrics.csv``, validation and checkpoints included. Families
with a hidden layer take a fifth of the data, and their time is scaled to all of it. No figures are
drawn, and nothing is logged but ``metrics.csv``.

``--against PATH`` measures another checkout as well, in turn with this one, and prints the ratio of
this one to the other: the median over turns of the ratio within a turn. ``none`` and ``none_nl``
take the steps of ``wdl`` and ``wdl_nl`` and are left out unless asked for.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from benchmarks.problems import FAMILIES, FOLDER_SETTING, ROOT, settings
from benchmarks.timing import machine, median_ratio, parser, show

SOLVERS = ("paper", "adaptive")
SPLITS = ("num_train", "num_val")
Key = tuple[str, str, str]  # family, solver, checkout


def part(family: str, given: argparse.Namespace) -> int:
    """A family trains on one in so many of the samples."""
    linear, hidden = given.parts
    return hidden if family.endswith("_nl") else linear


def training(family: str, solver: str, given: argparse.Namespace, folder: Path) -> list[str]:
    """Arguments that train a family on its part of the data."""
    whole = settings(f"data={given.data}").data
    return [
        *("-m", "sparse_lightning.train", f"model={family}", f"data={given.data}"),
        *(f"solver={solver}", f"trainer={given.trainer}", "trainer.enable_progress_bar=false"),
        *(f"trainer.max_epochs={given.epochs + 1}", "logger=none", "~callbacks.figures"),
        *(f"data.{name}={whole[name] // part(family, given)}" for name in SPLITS),
        *("data.num_test=250", f"{FOLDER_SETTING[given.data]}='{folder / 'data'}'"),
    ]


def epoch_seconds(
    checkout: Path, family: str, solver: str, given: argparse.Namespace, folder: Path, name: str
) -> float:
    """Seconds of a whole epoch, from a process that imports the package of a checkout."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = dict.fromkeys(variables, str(given.threads)) if given.threads else {}
    run = folder / name
    done = subprocess.run(
        [sys.executable, *training(family, solver, given, folder), f"hydra.run.dir='{run}'"],
        env=os.environ | threads | {"PYTHONPATH": str(checkout)},
        cwd=folder,  # Python looks for packages here first.
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"Training {family} with solver={solver} in {checkout} failed:\n{done.stderr}")
    with (run / "metrics.csv").open() as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return part(family, given) * statistics.median(seconds[1:])


def measure(given: argparse.Namespace, checkouts: dict[str, Path]) -> dict[Key, list[float]]:
    """Seconds of an epoch turn by turn; checkouts and solvers alternate within a family."""
    keys = [(f, s, c) for f in given.families for s in SOLVERS for c in checkouts]
    measured: dict[Key, list[float]] = {key: [] for key in keys}
    names = count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for turn in range(given.turns):
            # Every other turn in reverse, so that none is always the first.
            for family, solver, checkout in keys if turn % 2 == 0 else keys[::-1]:
                seconds = epoch_seconds(
                    checkouts[checkout], family, solver, given, folder, f"run{next(names)}"
                )
                measured[family, solver, checkout].append(seconds)
    return measured


def rows(families: Sequence[str], measured: dict[Key, list[float]]) -> list[list[str]]:
    """Per family and solver: seconds, ratio to the paper's solver, and both beside the other's."""
    found = []
    for family in families:
        paper = measured[family, "paper", "here"]
        for solver in SOLVERS:
            ours, theirs = measured[family, solver, "here"], measured.get((family, solver, "there"))
            row = [family, solver, f"{statistics.median(ours):.2f}"]
            row += [f"{median_ratio(ours, paper):.2f}"]
            if theirs:
                row += [f"{statistics.median(theirs):.2f}", f"{median_ratio(ours, theirs):.2f}"]
            found.append(row)
    return found


def command_line() -> argparse.ArgumentParser:
    known = parser(__doc__)
    known.add_argument("--against", type=Path, metavar="PATH", help="another checkout")
    known.add_argument("--families", nargs="*", default=FAMILIES)
    known.add_argument("--data", choices=FOLDER_SETTING, default="mnist")
    known.add_argument(
        "--parts",
        type=int,
        nargs=2,
        default=(1, 5),
        metavar=("LINEAR", "HIDDEN"),
        help="one in so many samples, for linear decoders and for those with a hidden layer",
    )
    known.add_argument("--epochs", type=int, default=1, help="timed in a process")
    known.add_argument("--turns", type=int, default=2)
    known.add_argument("--threads", type=int, help="of torch and numba; none: their own choice")
    known.add_argument("--trainer", default="cpu", help="of conf/trainer, such as gpu")
    return known


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = command_line()
    given = known.parse_args(words)
    if given.quick:
        given.families, given.parts, given.epochs, given.turns = ("sdl",), (200, 200), 1, 1
    checkouts = {"here": ROOT}
    if given.against is not None:
        if not (given.against / "sparse_lightning").is_dir():
            known.error(f"--against {given.against} holds no sparse_lightning: name a checkout.")
        checkouts["there"] = given.against.resolve()
    measured = measure(given, checkouts)
    headings = ("seconds", "paper = 1") + (("there", "there = 1") if given.against else ())
    title = f"An epoch on {given.data}, median of {given.turns} turns"
    threads = f", {given.threads} threads in training" if given.threads else ""
    show(
        f"{title}{threads}\n{machine()}",
        ("family", "solver"),
        headings,
        rows(given.families, measured),
    )


if __name__ == "__main__":
    main()
