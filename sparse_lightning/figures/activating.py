"""Each atom beside the images that activate it most."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sparse_lightning.figures.pages import pages
from sparse_lightning.figures.tiles import TILE_GAP
from sparse_lightning.studies.study_result import Pictures, StudyResult

ROWS = 32  # components in a column of the page
GAP = 10  # pixels between columns


def draw(result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """A page for each model."""
    for model, name, title in pages(result.pictures.index):
        own = result.pictures.where(**model)
        yield f"activating_{name}", page(own, f"{title}, {result.data}")


def page(pictures: Pictures, title: str) -> Figure:
    """Components one below the other: the atom around zero, then its images."""
    picture = sheet(pictures)
    height, width = picture.shape[:2]
    inches = 12.0
    figure = Figure(figsize=(inches, inches * height / width + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    zero = "grey zero" if pictures.pixels.ndim == 4 else "red positive, blue negative"
    axes.set_title(
        f"Atoms ({zero}), each followed by the images that activate it most: {title}",
        fontsize=10,
    )
    return figure


def sheet(pictures: Pictures) -> np.ndarray:
    """All tiles in one picture (height, width, RGB); units are read down each column in turn."""
    units = pictures.index["unit"].to_numpy()
    ranks = pictures.index["rank"].to_numpy()
    tile_height, tile_width = pictures.pixels.shape[1:3]
    down, across = tile_height + TILE_GAP, tile_width + TILE_GAP
    num_units, tiles_in_row = int(units.max()) + 1, int(ranks.max()) + 1
    num_columns = math.ceil(num_units / ROWS)
    num_rows = math.ceil(num_units / num_columns)
    column_width = tiles_in_row * across + GAP
    canvas = np.ones((num_rows * down, num_columns * column_width - GAP, 3))
    for unit, rank, tile in zip(units, ranks, pictures.pixels):
        column, row = divmod(unit, num_rows)
        top, left = row * down, column * column_width + rank * across
        coloured = _around_zero(tile) if rank == 0 else _as_it_is(tile)
        canvas[top : top + tile_height, left : left + tile_width] = coloured
    return canvas


def _as_it_is(tile: np.ndarray) -> np.ndarray:
    shown = np.clip(tile, 0, 1)
    return shown if tile.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)


def _around_zero(tile: np.ndarray) -> np.ndarray:
    """Over the tile's largest magnitude, as `feature_tiles` draws it.

    Red for positive, blue for negative, white for 0; of a tile in colour its colours around grey.
    """
    values = tile / max(float(np.abs(tile).max()), 1e-12)
    if tile.ndim == 3:
        return values / 2 + 0.5
    return matplotlib.colormaps["RdBu_r"](values / 2 + 0.5)[..., :3]
