"""PSNR, or R² of inputs that are no images, against bits per image."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import families_in_order, family_name, family_style, tidy
from sparse_lightning.quality import quality_of
from sparse_lightning.studies.study_result import StudyResult

KINDS = ["sparsity_weight", "step"]


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """Rate against distortion, and what the bits are spent on."""
    yield "rate", rate_distortion(result.table, result.more["references"], result.data)
    yield "rate_parts", parts(result.table, result.data)


def rate_distortion(table: pd.DataFrame, references: pd.DataFrame, data: str) -> Figure:
    """Every λ and step as a faint point, mean over seeds; the best of each family as a line."""
    quality = quality_of(table)
    figure = Figure(figsize=(8.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for family in families_in_order(table["family"]):
        points = table[table["family"] == family].groupby(KINDS)[["bits", quality.name]].mean()
        _front(axes, points, quality.name, family_name(family), family_style(family))
    style = {"color": "0.4", "linestyle": "-.", "marker": "x"}
    _front(axes, references.dropna(subset=["bits"]), quality.name, "PCA", style)
    axes.set(xlabel="bits per image", ylabel=quality.label)
    tidy(axes)
    axes.legend(fontsize=8, handlelength=3.5, title="best over λ and step", title_fontsize=8)
    figure.suptitle(
        f"Reconstruction against the entropy of codes, test images of {data}", fontsize=10
    )
    return figure


def _front(axes: Axes, points: pd.DataFrame, quality: str, label: str, style: dict) -> None:
    best = front(points, quality)
    axes.scatter(
        points["bits"], points[quality], color=style["color"], s=10, alpha=0.25, linewidths=0
    )
    axes.plot(best["bits"], best[quality], label=label, markersize=4, linewidth=1.4, **style)


def front(points: pd.DataFrame, quality: str) -> pd.DataFrame:
    """The points that no other one beats in both, in the order of their bits."""
    ordered = points.sort_values(["bits", quality], ascending=[True, False])
    before = ordered[quality].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered[quality] > before]


def parts(table: pd.DataFrame, data: str) -> Figure:
    """Bits of the support and of the amplitudes against zeros, a panel for each step."""
    steps = sorted(table["step"].unique())
    figure = Figure(figsize=(2.6 * len(steps) + 0.6, 3.6), layout="constrained")
    grid = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
    for axes, step in zip(grid, steps):
        for family in families_in_order(table["family"]):
            chosen = table[(table["step"] == step) & (table["family"] == family)]
            means = chosen.groupby("sparsity_weight")[["zeros", "support_bits", "amplitude_bits"]]
            points, colour = means.mean().sort_values("zeros"), family_style(family)["color"]
            label, zeros = family_name(family), 100 * points["zeros"]
            axes.plot(zeros, points["support_bits"], "o-", color=colour, markersize=3, label=label)
            axes.plot(zeros, points["amplitude_bits"], "s:", color=colour, markersize=3)
        axes.set(xlabel="zeros (%)", title=f"step {step:g} × rms")
        axes.title.set_fontsize(9)
        axes.set_ylim(bottom=0)
        tidy(axes)
    grid[0].set_ylabel("bits per image")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(f"Bits of supports (solid) and amplitudes (dotted), {data}", fontsize=10)
    return figure
