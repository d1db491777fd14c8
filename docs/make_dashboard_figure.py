"""Draw the dashboard's panels from a sweep's own files: ``... FOLDER OUT.png``.

W&B draws the real dashboard; this shows the same quantities, by matplotlib, without a server.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import pandas as pd
from matplotlib.figure import Figure

from sparse_lightning.experiments.dashboard import CURVES
from sparse_lightning.experiments.table import collect
from sparse_lightning.files import write_figure

SYMBOLS = {"sparsity_weight": "λ", "variance_weight": "β", "encoder_weight": "γ"}


def draw(folder: Path) -> Figure:
    table = collect(folder).query("state == 'finished'")
    families = list(table["family"].unique())
    colours = {
        run: f"C{families.index(family)}" for run, family in zip(table["run"], table["family"])
    }
    curves = [curve for group in CURVES.values() for curve in group]
    figure = Figure(figsize=(13, 15.5), layout="constrained")
    figure.suptitle(f"{len(table)} runs of the sweep {folder.resolve().name}", fontsize=12)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1, 2.6, 2.2))
    _regret(top, table, families)
    for axes, curve in zip(middle.subplots(3, 4).flat, curves):
        for run, colour in colours.items():
            epochs = pd.read_csv(folder / run / "metrics.csv")
            axes.plot(epochs["epoch"] + 1, epochs[curve.metrics[0]], color=colour, lw=0.9)
        axes.set_title(curve.title, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.grid(alpha=0.3)
    _dictionaries(bottom, folder, table)
    return figure


def _regret(panel, table: pd.DataFrame, families: list[str]) -> None:
    scatter, parallel = panel.subplots(1, 2, width_ratios=(1, 1.5))
    for number, family in enumerate(families):
        rows = table[table["family"] == family]
        scatter.scatter(100 * rows["test/zeros"], rows["test/psnr"], label=family, s=18)
        columns = [*SYMBOLS, "test/zeros", "test/psnr"]
        spans = table[columns].agg(["min", "max"])
        width = (spans.loc["max"] - spans.loc["min"]).replace(0, 1)
        for _, row in ((rows[columns] - spans.loc["min"]) / width).iterrows():
            parallel.plot(range(len(columns)), row, color=f"C{number}", lw=0.9)
    scatter.set(xlabel="zeros in the codes (%)", ylabel="PSNR (dB)", title="test")
    scatter.legend(fontsize=8)
    scatter.grid(alpha=0.3)
    names = [*SYMBOLS.values(), "zeros", "PSNR"]
    labels = [
        f"{name}\n{spans.loc['min', column]:.3g} to {spans.loc['max', column]:.3g}"
        for name, column in zip(names, columns)
    ]
    parallel.set_xticks(range(len(columns)), labels, fontsize=8)
    parallel.set(yticks=[], title="one line per run, each axis from its least to its greatest")


def _dictionaries(panel, folder: Path, table: pd.DataFrame) -> None:
    shown = table.drop_duplicates(["family", "sparsity_weight"]).head(6)
    for axes, (_, row) in zip(panel.subplots(2, 3).flat, shown.iterrows()):
        axes.imshow(matplotlib.image.imread(folder / row["run"] / "figures" / "atoms.png"))
        axes.set_title(f"{row['family']}, λ = {row['sparsity_weight']:g}", fontsize=9)
        axes.axis("off")


if __name__ == "__main__":
    write_figure(draw(Path(sys.argv[1])), Path(sys.argv[2]))
