"""PSNR, or R² of inputs that are no images, against bits per image."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    OVER_SEEDS,
    curve_with_bars,
    families_in_order,
    family_name,
    family_style,
    legend_below,
    tidy,
)
from sparse_lightning.quality import PSNR, quality_of
from sparse_lightning.studies.study_result import StudyResult

PARTS = {
    "support_bits": "bits: which units are active",
    "amplitude_bits": "bits: how active they are",
}
KINDS = ["sparsity_weight", "step"]
SMALL = {"markersize": 2.5, "linewidth": 1.2, "capsize": 1.5, "elinewidth": 0.7}


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """Rate against distortion, and what the bits are spent on."""
    yield "rate", rate_distortion(result.table, result.more["references"], result.data)
    yield "rate_parts", parts(result.table, result.data)


def rate_distortion(table: pd.DataFrame, references: pd.DataFrame, data: str) -> Figure:
    """Every λ and step as a faint point, mean over seeds; the best of each family as a line.

    Points of no bits, such as the mean image, have no place on the axis of bits.
    """
    quality = quality_of(table)
    figure = Figure(figsize=(8.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for family in families_in_order(table["family"]):
        by_kind = table[table["family"] == family].groupby(KINDS)[["bits", quality.name]]
        points = by_kind.mean().join(by_kind.std().add_suffix("_std"))
        _front(axes, points, quality.name, family_name(family), family_style(family))
    style = {"color": "0.4", "linestyle": "-.", "marker": "x"}
    _front(axes, references, quality.name, "PCA", style)
    sample = "image" if quality is PSNR else "row"
    axes.set(xscale="log", xlabel=f"bits per {sample}", ylabel=quality.label)
    axes.xaxis.set_major_formatter("{x:g}")
    tidy(axes)
    axes.legend(fontsize=8, handlelength=3.5, title="best over λ and step", title_fontsize=8)
    figure.suptitle(
        f"Reconstruction against the entropy of codes, test {sample}s of {data}\n{OVER_SEEDS}",
        fontsize=10,
    )
    return figure


def _front(axes: Axes, points: pd.DataFrame, quality: str, label: str, style: dict) -> None:
    points = points[points["bits"] > 0]
    best = front(points, quality)
    axes.scatter(
        points["bits"], points[quality], color=style["color"], s=8, alpha=0.25, linewidths=0
    )
    spread = best.get(f"{quality}_std")
    curve_with_bars(axes, best["bits"], best[quality], yerr=spread, label=label, **SMALL | style)


def front(points: pd.DataFrame, quality: str) -> pd.DataFrame:
    """The points that no other one beats in both, in the order of their bits."""
    ordered = points.sort_values(["bits", quality], ascending=[True, False])
    before = ordered[quality].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered[quality] > before]


def parts(table: pd.DataFrame, data: str) -> Figure:
    """Bits of supports and of amplitudes against zeros, a column for each step."""
    steps = sorted(table["step"].unique())
    figure = Figure(figsize=(2.4 * len(steps) + 0.8, 5.0), layout="constrained")
    grid = figure.subplots(2, len(steps), squeeze=False, sharex=True, sharey="row")
    for row, (name, label) in zip(grid, PARTS.items()):
        for axes, step in zip(row, steps):
            for family in families_in_order(table["family"]):
                chosen = table[(table["step"] == step) & (table["family"] == family)]
                means = chosen.groupby("sparsity_weight")[["zeros", name]].mean()
                points, style = means.sort_values("zeros"), family_style(family)
                axes.plot(100 * points["zeros"], points[name], markersize=4, **style)
                axes.lines[-1].set_label(family_name(family))
            axes.set_ylim(bottom=0)
            tidy(axes)
        row[0].set_ylabel(label)
    for axes, step in zip(grid[0], steps):
        axes.set_title(f"step {step:g} × rms", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("zeros (%)")
    legend_below(figure, 5)
    figure.suptitle(f"What the bits of codes are spent on, {data}", fontsize=10)
    return figure
