"""The variance hinge as a surface and along a line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from sparse_lightning.figures.style import tidy
from sparse_lightning.studies.study_result import StudyResult


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """The surface in 3-D, and value and gradient along a line."""
    yield "hinge_surface", surface(result.table)
    yield "hinge_gradient", line(result.more["line"])


def surface(table: pd.DataFrame) -> Figure:
    """[(T − σ)₊]² of a batch of two over both codes."""
    figure = Figure(figsize=(6.4, 4.6))
    axes = figure.add_subplot(projection="3d")
    axes.plot_trisurf(
        _triangles(table), table["hinge"], cmap="viridis", linewidth=0, antialiased=False
    )
    axes.set(xlabel="code of sample 1", ylabel="code of sample 2")
    axes.set_zlabel("[(T − σ)₊]²", labelpad=8)
    axes.view_init(elev=32, azim=-105)
    axes.set_box_aspect((1, 1, 0.6), zoom=1.0)
    figure.subplots_adjust(left=0, right=0.94, bottom=0.04, top=0.98)
    figure.suptitle("Variance hinge of a batch of two samples, one component", fontsize=10)
    return figure


def _triangles(table: pd.DataFrame) -> Triangulation:
    """Squares of the grid cut along z1 = z2, where the surface has its ridge."""
    side = table["z1"].nunique()
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1, 1)
    halves = [np.add(corner, half) for half in ((0, side, side + 1), (0, side + 1, 1))]
    return Triangulation(table["z1"], table["z2"], np.concatenate(halves))


def line(table: pd.DataFrame) -> Figure:
    """The hinge and its gradient while one code moves past the other."""
    figure = Figure(figsize=(8.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    held = table["z2"].iloc[0]
    left.plot(table["z1"], table["hinge"], color="tab:blue")
    left.set(ylabel="[(T − σ)₊]²")
    right.plot(table["z1"], table["gradient"], color="tab:orange")
    right.axhline(0, color="black", linewidth=0.6)
    right.set(ylabel="gradient for code 1 (eq. 12)")
    for axes in (left, right):
        axes.axvline(held, color="black", linestyle=":", label=f"code 2 = {held:g}")
        axes.set(xlabel="code of sample 1")
        axes.legend(fontsize=8)
        tidy(axes)
    figure.suptitle(
        "Along a line: the pull away from equal codes is strongest beside them", fontsize=10
    )
    return figure
