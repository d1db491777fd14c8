"""Dictionaries as tiles, and the Gabor functions fitted to them as scatter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparse_lightning.figures.pages import pages
from sparse_lightning.figures.style import (
    families_in_order,
    family_name,
    sparsity_symbol,
    tidy,
)
from sparse_lightning.figures.tiles import feature_tiles
from sparse_lightning.studies.study_result import Pictures, StudyResult


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """For each model its atoms on two scales, its filters and its Gabor fits; then all extents."""
    for model, name, title in pages(result.table):
        title = f"{title}, {result.data}"
        if result.pictures is not None:
            yield from _tiles(result.pictures.where(**model), name, title)
        rows = result.table[(result.table[list(model)] == pd.Series(model)).all(axis=1)]
        if "explained" in rows and rows["used"].any():
            yield f"gabors_{name}", gabor_scatter(rows[rows["used"]], title)
    if result.table["used"].any():
        yield "atom_extents", atom_extents(result.table, result.data)


def _tiles(pictures: Pictures, name: str, title: str) -> Iterator[tuple[str, Figure]]:
    atoms = pictures.where(kind="atom").pixels
    if len(atoms) == 0:  # The weights are gone.
        return
    yield f"atoms_{name}", feature_tiles(atoms, f"Atoms: {title}")
    one_scale = feature_tiles(atoms, f"Atoms on one scale: {title}", own_scale=False)
    yield f"atoms_one_scale_{name}", one_scale
    filters = pictures.where(kind="encoder filter").pixels
    if len(filters):
        yield f"filters_{name}", feature_tiles(filters, f"Encoder filters U: {title}")


def gabor_scatter(rows: pd.DataFrame, title: str) -> Figure:
    """Orientation and frequency on a half disc, the two sizes, and how much the fits explain."""
    figure = Figure(figsize=(10.2, 3.7), layout="constrained")
    alike, others = rows[rows["gabor_like"]], rows[~rows["gabor_like"]]
    disc = figure.add_subplot(1, 3, 1, projection="polar")
    disc.set_thetalim(0, np.pi)
    for part, style in ((others, _FAINT), (alike, _BOLD)):
        disc.scatter(part["orientation"], part["frequency"], **style)
    disc.set_title("orientation of the stripes,\nfrequency (cycles/pixel) outwards", fontsize=9)
    disc.tick_params(labelsize=7)
    disc.yaxis.set_major_locator(MaxNLocator(4))
    sizes = figure.add_subplot(1, 3, 2)
    for part, style in ((others, _FAINT), (alike, _BOLD)):
        sizes.scatter(part["size_along"], part["size_across"], **style)
    sizes.set(xlabel="size along the wave (pixels)", ylabel="size along the stripes (pixels)")
    sizes.set(xscale="log", yscale="log", xlim=(0.6, 32), ylim=(0.6, 32))
    sizes.axline((1, 1), (2, 2), color="0.6", linewidth=0.7)
    share = figure.add_subplot(1, 3, 3)
    share.hist(rows["explained"], bins=np.linspace(0, 1, 26), color="tab:blue")
    share.set(xlabel="share of an atom's energy explained", ylabel="atoms")
    for axes in (sizes, share):
        tidy(axes)
    figure.suptitle(
        f"Gabor functions fitted to atoms: {title}; {100 * rows['gabor_like'].mean():.0f} % "
        "Gabor-like (dark)",
        fontsize=10,
    )
    return figure


_BOLD = {"s": 12, "color": "tab:blue", "alpha": 0.9, "linewidths": 0}
_FAINT = {"s": 12, "color": "0.7", "alpha": 0.6, "linewidths": 0}


def atom_extents(table: pd.DataFrame, data: str) -> Figure:
    """How far an atom reaches and how like an image it is, against λ: strokes, whole digits."""
    used = table[table["used"]]
    families = families_in_order(used["family"])
    figure = Figure(figsize=(max(1.9 * len(families), 4.0) + 0.6, 5.2), layout="constrained")
    labels = {
        "extent": "extent of an atom\n(share of the side)",
        "likeness": "correlation with\nthe nearest image",
    }
    for row, (name, label) in zip(figure.subplots(2, len(families), squeeze=False), labels.items()):
        row[0].set_ylabel(label)
        for axes, family in zip(row, families):
            groups = used[used["family"] == family].groupby("sparsity_weight")[name]
            axes.boxplot(
                [values.to_numpy() for _, values in groups],
                tick_labels=[f"{weight:g}" for weight, _ in groups],
                showfliers=False,
                medianprops={"color": "tab:red"},
            )
            axes.set_ylim(0, 1)
            axes.set_title(family_name(family), fontsize=9)
            axes.tick_params(axis="x", labelsize=7, rotation=90)
            axes.set_xlabel(sparsity_symbol(family) if name == "likeness" else "", fontsize=9)
            tidy(axes)
    figure.suptitle(f"From strokes to whole images, {data}\n(atoms in use; box: quartiles)",
                    fontsize=10)  # fmt: skip
    return figure
