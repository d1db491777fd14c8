"""How the cost of an iteration grows as the batch, the code, the input and the hidden layer double.

``python -m benchmarks.growth [--folder docs/images]`` times 20 iterations of the paper's solver,
tolerance 0, for a linear decoder and one hidden layer, and fits the slope of log time against log
size over the sizes from the paper's upwards: 1 is proportional. Writes ``growth.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from rich.console import Console
from rich.table import Table

from benchmarks.timing import machine, medians
from sparse_lightning import FISTA, Energy, LinearDecoder, MultiLayerDecoder
from sparse_lightning.files import write_figure

PAPER = {"samples n": 250, "code l": 128, "input d": 784, "hidden m": 1024, "hidden layers": 1}
ITERATIONS = 20


def iterations(decoder: str, sizes: dict[str, int]) -> Callable[[], object]:
    """What is timed, binding not included."""
    torch.manual_seed(0)
    n, code_dim, d, m, depth = sizes.values()
    if decoder == "linear":
        made = LinearDecoder(code_dim, d)
    else:
        made = MultiLayerDecoder(code_dim, [m] * depth, d)
    inputs, initial = torch.randn(n, d), torch.rand(n, code_dim)
    with torch.no_grad():
        objective = Energy(0.01, encoder_weight=1.0).bind(made, inputs, initial)
    solver = FISTA(0.5, ITERATIONS, tolerance=0.0)
    return lambda: solver(objective, initial)


def measure() -> pd.DataFrame:
    """One row per decoder, dimension and factor, all of them timed in turn."""
    rivals = {}
    for decoder in ("linear", "one hidden layer"):
        for name, size in PAPER.items():
            if decoder == "linear" and name.startswith("hidden"):
                continue
            for factor in (1, 2, 4) if name == "hidden layers" else (1, 2, 4, 8):
                sizes = PAPER | {name: factor * size}
                rivals[decoder, name, factor] = iterations(decoder, sizes)
    seconds = medians(rivals, repeats=5)
    table = pd.DataFrame(list(rivals), columns=["decoder", "dimension", "factor"])
    return table.assign(milliseconds=[1e3 * value / ITERATIONS for value in seconds.values()])


def slope(part: pd.DataFrame) -> float:
    """Of log time against log size."""
    fitted = np.polyfit(np.log(part["factor"]), np.log(part["milliseconds"]), 1)[0]
    return round(float(fitted), 2) + 0.0  # never minus zero


def draw(table: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (decoder, part) in zip(axes, table.groupby("decoder", sort=False)):
        for name, curve in part.groupby("dimension", sort=False):
            label = f"{name}, slope {slope(curve):.2f}"
            axis.loglog(curve["factor"], curve["milliseconds"], marker="o", label=label)
        axis.set(title=decoder, xlabel="size, times the paper's", ylabel="ms per iteration")
        axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=None, help="for growth.png")
    folder = parser.parse_args().folder
    measured = measure()
    table = Table(title=f"Milliseconds per iteration\n{machine()}")
    for heading in ("decoder", "dimension", "x 1", "x 2", "x 4", "x 8", "slope"):
        table.add_column(heading, justify="left" if heading[0] == "d" else "right")
    for (decoder, name), part in measured.groupby(["decoder", "dimension"], sort=False):
        cells = [f"{value:.2f}" for value in part["milliseconds"]]
        table.add_row(decoder, name, *cells, *[""] * (4 - len(cells)), f"{slope(part):.2f}")
    Console().print(table)
    if folder is not None:
        write_figure(draw(measured), folder / "growth.png")


if __name__ == "__main__":
    main()
