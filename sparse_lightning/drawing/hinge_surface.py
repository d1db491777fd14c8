"""The variance hinge as a surface and along a line."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from sparse_lightning.drawing.style import tidy
from sparse_lightning.findings import Findings


def draw(findings: Findings) -> Iterator[tuple[str, Figure]]:
    """The surface in 3-D, and value and gradient along a line."""
    yield "hinge_surface", surface(findings.table)
    yield "hinge_gradient", line(findings.more["line"])


def surface(table: pd.DataFrame) -> Figure:
    """[(T − σ)₊]² of a batch of two over both codes."""
    grid = table.pivot(index="z1", columns="z2", values="hinge")
    figure = Figure(figsize=(6.4, 5.0))
    axes = figure.add_subplot(projection="3d")
    first, second = grid.index.to_numpy(), grid.columns.to_numpy()
    axes.plot_surface(
        first[:, None] + 0 * second, 0 * first[:, None] + second, grid.to_numpy(),
        cmap="viridis", rcount=60, ccount=60, linewidth=0.1, edgecolor="0.6",
    )  # fmt: skip
    axes.set(xlabel="code of sample 1", ylabel="code of sample 2")
    axes.set_zlabel("[(T − σ)₊]²", labelpad=6)
    axes.view_init(elev=28, azim=-55)
    axes.set_box_aspect(None, zoom=0.86)
    axes.set_title("Variance hinge of a batch of two samples, one component", fontsize=10)
    return figure


def line(table: pd.DataFrame) -> Figure:
    """The hinge and its gradient while one code moves past the other."""
    figure = Figure(figsize=(8.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    held = table["z2"].iloc[0]
    left.plot(table["z1"], table["hinge"], color="tab:blue")
    left.set(ylabel="[(T − σ)₊]²")
    right.plot(table["z1"], table["gradient"], color="tab:orange")
    right.axhline(0, color="black", linewidth=0.6)
    right.set(ylabel="gradient with respect to code 1 (eq. 12)")
    for axes in (left, right):
        axes.axvline(held, color="black", linestyle=":", label=f"code 2 = {held:g}")
        axes.set(xlabel="code of sample 1")
        axes.legend(fontsize=8)
        tidy(axes)
    figure.suptitle(
        "Along a line: the pull away from equal codes is strongest beside them", fontsize=10
    )
    return figure
