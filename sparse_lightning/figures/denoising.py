"""Denoising: PSNR as bars, and strips of pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_lightning.figures.style import (
    OVER_SEEDS,
    families_in_order,
    family_name,
    family_style,
    is_non_linear,
    sparsity_name,
    tidy,
)
from sparse_lightning.figures.tiles import image_rows
from sparse_lightning.studies.study_result import Pictures, StudyResult


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """One figure of PSNR for all noise levels, and a strip for each family and level."""
    others = [
        result.more["baselines"].rename(columns={"baseline": "name"}),
        result.more["references"].rename(columns={"reference": "name"}),
    ]
    yield "denoising", psnr_bars(result.more["best"], pd.concat(others), result.data)
    if result.pictures is None:  # The weights of all models are gone.
        return
    for (noise, family), _ in result.pictures.index.groupby(["noise", "family"]):
        strip = result.pictures.where(noise=noise, family=family)
        yield f"strip_{family}_noise_{noise:g}", picture_strip(strip, result.data)


def psnr_bars(best: pd.DataFrame, others: pd.DataFrame, data: str) -> Figure:
    """PSNR of the noisy image (line), and of families, baselines and references (bars)."""
    levels = sorted(best["noise"].unique())
    figure = Figure(figsize=(8.2, 2.9 * len(levels) + 0.4), layout="constrained")
    for axes, level in zip(figure.subplots(len(levels), 1, squeeze=False).flat, levels):
        ours, theirs = best[best["noise"] == level], others[others["noise"] == level]
        ours = ours.set_index("family").loc[families_in_order(ours["family"])].reset_index()
        _bars(axes, ours, theirs)
        noisy = float(ours["psnr_noisy"].mean())
        axes.axhline(noisy, color="black", linestyle=":")
        heading = (
            f"noise σ = {level:g} on the standardised input; dotted: noisy image, {noisy:.1f} dB"
        )
        axes.set(ylabel="PSNR (dB)", title=heading)
        axes.title.set_fontsize(9)
        axes.margins(y=0.15)
        tidy(axes)
        axes.grid(visible=False, axis="x")
    title = [
        f"Denoising, test images of {data}",
        "families (λ chosen on validation; linear hatched), scikit-image and references (grey)",
        OVER_SEEDS,
    ]
    if best["at_end"].any():
        title.append("*: the smallest or the largest λ that it was chosen from")
    if best["by_image"].any():
        title.append("un-normalised by the mean and deviation of each clean image")
    figure.suptitle("\n".join(title), fontsize=10)
    return figure


def _bars(axes: Axes, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """One bar for each family, and one for each baseline and reference."""
    labels = [
        f"{family_name(row.family)}\n{sparsity_name(row.family, row.sparsity_weight)}"
        f"{'*' if row.at_end else ''}"
        for row in ours.itertuples()
    ]
    labels += [str(name).replace(" ", "\n", 1) for name in theirs["name"]]
    colours = [family_style(family)["color"] for family in ours["family"]]
    bars = axes.bar(
        range(len(labels)),
        [*ours["psnr_denoised"], *theirs["psnr_denoised"]],
        # One seed has no bar, nor has a reference.
        yerr=[*ours["psnr_denoised_std"], *(np.nan for _ in theirs.index)],
        color=[*colours, *("0.75" for _ in theirs.index)],
        capsize=2,
    )
    for bar, family in zip(bars, ours["family"]):
        bar.set_hatch("" if is_non_linear(family) else "///")
        bar.set_edgecolor("white")
    axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_xticks(range(len(labels)), labels, fontsize=7)


def picture_strip(pictures: Pictures, data: str) -> Figure:
    """Clean, its reconstruction, noisy, its reconstruction; one column per image."""
    first = pictures.index.iloc[0]
    rows = {name: pictures.where(row=name).pixels for name in pictures.index["row"].unique()}
    title = (
        f"{family_name(first['family'])}, "
        f"{sparsity_name(first['family'], first['sparsity_weight'])}, "
        f"noise σ = {first['noise']:g}, {data}"
    )
    return image_rows(rows, title)
