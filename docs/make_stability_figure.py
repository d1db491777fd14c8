"""Draw ``docs/images/stability.png``: what long trainings of VDL-NL do to inference.

    python docs/make_stability_figure.py runs/paper_step_0.01 runs/paper_step_0.02 runs/literal_0.02

Each folder is that of a run of ``model=vdl_nl data=mnist`` with checkpoints kept:

    '+callbacks.every={_target_: lightning.pytorch.callbacks.ModelCheckpoint,
      dirpath: "${run_dir}/every", filename: "{epoch}", save_top_k: -1, every_n_epochs: 10}'
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
from sparse_lightning.files import write_figure

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


def curvatures(run: Run, inputs: Tensor) -> pd.DataFrame:
    """Epoch, and the mean and maximum over samples of `largest_curvature`, of each checkpoint."""
    rows = []
    for path in (run.folder / "every").glob("*.ckpt"):
        model = SparseAutoencoder.load_from_checkpoint(path)
        found = largest_curvature(model, inputs)
        epoch = int(re.search(r"\d+", path.stem).group())
        rows.append((epoch + 1, float(found.mean()), float(found.max())))
    return pd.DataFrame(sorted(rows), columns=["epoch", "mean", "max"])


def label(run: Run) -> str:
    safeguard = run.config.solver.get("safeguard", False)
    weight = run.config.model.energy.sparsity_weight
    return f"λ = {weight:g}, {'safeguarded' if safeguard else 'literal'}"


def draw(axes: dict[str, Axes], run: Run, inputs: Tensor, color: str) -> None:
    """One run's lines in all panels."""
    table = pd.read_csv(run.folder / "metrics.csv")
    style = {"color": color, "linestyle": "-" if "safeguard" in run.config.solver else "--"}
    epochs = table["epoch"] + 1
    for name, panel in axes.items():
        if name in table:
            panel.plot(epochs, table[name], label=label(run), **style)
    if "train/column_norm_1" in table:
        for layer, width in ((1, 1.0), (2, 2.2)):
            norms = table[f"train/column_norm_{layer}"]
            axes["column_norms"].plot(epochs, norms, linewidth=width, **style)
    found = curvatures(run, inputs)
    axes["curvature"].plot(found["epoch"], found["max"], marker=".", **style)
    axes["curvature"].plot(found["epoch"], found["mean"], linewidth=0.8, **style)


def main() -> None:
    """Write the figure and print its path."""
    runs = [Run(Path(folder)) for folder in sys.argv[1:]]
    if not runs:
        sys.exit("error: give the folders of runs; see the first lines of this file.")
    data = runs[0].data()
    data.prepare_data()
    data.setup()
    inputs = data.splits["val"].tensors.inputs[:250]
    step_size = runs[0].config.solver.step_size
    figure, grid = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained", sharex=True)
    axes = dict(zip(PANELS, grid.flat))
    for run, color in zip(runs, ("tab:blue", "tab:orange", "tab:red", "tab:green")):
        draw(axes, run, inputs, color)
    for name, panel in axes.items():
        panel.set_ylabel(PANELS[name])
        panel.grid(alpha=0.3)
    for panel in grid[1]:
        panel.set_xlabel("epoch")
    for name, ticks in (
        ("train/iterations", (3, 5, 10, 20, 50)),
        ("curvature", (2, 5, 10, 20, 50, 100)),
    ):
        axes[name].set_yscale("log")
        axes[name].set_yticks(ticks, map(str, ticks))
        axes[name].minorticks_off()
    axes["column_norms"].set_title("thin: hidden layer, thick: output layer", fontsize=9)
    axes["curvature"].set_title("thick: maximum over 250 samples, thin: mean", fontsize=9)
    for bound, text in ((4 / 3, "4/3"), (2.0, "2")):
        axes["curvature"].axhline(bound / step_size, color="black", linewidth=0.8, linestyle=":")
        axes["curvature"].annotate(
            f"ηL = {text}",
            xy=(1, bound / step_size),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
        )
    axes["val/psnr"].legend(fontsize=8)
    figure.suptitle("VDL-NL on MNIST with the paper's numbers, η = 0.5")
    print(write_figure(figure, Path(__file__).parent / "images" / "stability.png"))


if __name__ == "__main__":
    main()
