r"""Draw ``docs/images/stability.png``: what long trainings of VDL-NL do to inference.

    python docs/make_stability_figure.py                           # what is on record
    python docs/make_stability_figure.py lambda0.02-seed11=runs/mine    # with a run, recorded first

The record, ``docs/results/long_vdl_nl.parquet``, has every epoch of each run, and the curvature
after those epochs whose checkpoints the run kept:

    python -m sparse_lightning.train model=vdl_nl data=mnist trainer.max_epochs=200 \
      +callbacks.every._target_=lightning.pytorch.callbacks.ModelCheckpoint \
      '+callbacks.every.dirpath=${run_dir}/every' '+callbacks.every.filename="{epoch}"' \
      +callbacks.every.save_top_k=-1 +callbacks.every.every_n_epochs=10
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from sparse_lightning import SparseAutoencoder
from sparse_lightning.experiments.runs import Run
from sparse_lightning.files import replaced_whole, write_figure

DOCS = Path(__file__).parent
RECORD = DOCS / "results" / "long_vdl_nl.parquet"
STEP_SIZE = 0.5
RUNS = {
    "lambda0.01-seed31": ("λ = 0.01, 1/L for a sample", "tab:blue", "--"),
    "lambda0.02-seed11": ("λ = 0.02, safeguarded", "tab:orange", "-"),
    "lambda0.02-seed11-alone": ("λ = 0.02, 1/L for a sample", "tab:green", "--"),
    "lambda0.02-seed11-literal": ("λ = 0.02, literal", "tab:red", ":"),
}
PANELS = {
    "val/psnr": "validation PSNR (dB)",
    "val/zeros": "zeros in validation codes",
    "train/iterations": "iterations per sample",
    "train/converged": "share of samples converged",
    "column_norms": "mean column norm",
    "curvature": "largest curvature L of a sample",
}


def largest_curvature(model: SparseAutoencoder, inputs: Tensor) -> Tensor:
    r"""The largest eigenvalue of each sample's Hessian at the encoder's codes, (n,).

    Of the reconstruction term, :math:`\frac2d J^\top J` for a relu network, by 50 power iterations,
    and :math:`2\gamma/l` of the encoder term.
    """
    codes = model.encode(inputs)
    _, pull = torch.func.vjp(model.decoder, codes)
    direction = torch.ones_like(codes)
    for _ in range(50):
        direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        _, response = torch.func.jvp(model.decoder, (codes,), (direction,))
        (direction,) = pull(response * (2 / inputs.shape[1]))
    own = torch.linalg.vector_norm(direction, dim=1)
    return (own + 2 * model.energy.encoder_weight / codes.shape[1]).detach()


def recorded(name: str, run: Run) -> pd.DataFrame:
    """Every epoch of a run; where there is a checkpoint, L over 250 validation images."""
    data = run.data()
    data.prepare_data()
    data.setup()
    inputs = data.splits["val"].tensors.inputs[:250]
    table = pd.read_csv(run.folder / "metrics.csv").assign(run=name).set_index("epoch")
    for path in (run.folder / "every").glob("*.ckpt"):
        found = largest_curvature(SparseAutoencoder.load_from_checkpoint(path), inputs)
        epoch = int(re.search(r"\d+", path.stem).group())
        table.loc[epoch, ["curvature_mean", "curvature_max"]] = (
            float(found.mean()),
            float(found.max()),
        )
    return table.reset_index()


def draw(axes: dict[str, Axes], table: pd.DataFrame, label: str, color: str, line: str) -> None:
    """One run's lines in all panels."""
    style = {"color": color, "linestyle": line}
    epochs = table["epoch"] + 1
    for name, panel in axes.items():
        if name in table:
            panel.plot(epochs, table[name], label=label, **style)
    for layer, width in ((1, 1.0), (2, 2.2)):
        norms = table[f"train/column_norm_{layer}"]
        axes["column_norms"].plot(epochs, norms, linewidth=width, **style)
    measured = table.dropna(subset="curvature_max")
    at = measured["epoch"] + 1
    axes["curvature"].plot(at, measured["curvature_max"], marker=".", **style)
    axes["curvature"].plot(at, measured["curvature_mean"], linewidth=0.8, **style)


def main() -> None:
    """Write the figure and print its path."""
    record = pd.read_parquet(RECORD)
    for name, folder in (argument.split("=", 1) for argument in sys.argv[1:]):
        others = record[record["run"] != name]
        record = pd.concat([others, recorded(name, Run(Path(folder)))], ignore_index=True)
        with replaced_whole(RECORD) as temporary:
            record.to_parquet(temporary, index=False)
    figure, grid = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained", sharex=True)
    axes = dict(zip(PANELS, grid.flat))
    for name, style in RUNS.items():
        draw(axes, record[record["run"] == name].sort_values("epoch"), *style)
    for name, panel in axes.items():
        panel.set_ylabel(PANELS[name])
        panel.grid(alpha=0.3)
    for panel in grid[1]:
        panel.set_xlabel("epoch")
    for name, ticks in (
        ("train/iterations", (3, 5, 10, 20, 50, 100)),
        ("curvature", (2, 5, 10, 20, 50, 100, 200)),
    ):
        axes[name].set_yscale("log")
        axes[name].set_yticks(ticks, map(str, ticks))
        axes[name].minorticks_off()
    axes["column_norms"].set_title("thin: hidden layer, thick: output layer", fontsize=9)
    axes["curvature"].set_title("thick: maximum over samples, thin: mean", fontsize=9)
    for bound, text in ((4 / 3, "4/3"), (2.0, "2")):
        axes["curvature"].axhline(bound / STEP_SIZE, color="black", linewidth=0.8, linestyle=":")
        axes["curvature"].annotate(
            f"ηL = {text}",
            xy=(1, bound / STEP_SIZE),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
        )
    axes["val/psnr"].legend(fontsize=8)
    figure.suptitle("VDL-NL on MNIST with the paper's numbers, η = 0.5")
    print(write_figure(figure, DOCS / "images" / "stability.png"))


if __name__ == "__main__":
    main()
