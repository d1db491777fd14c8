"""Small images as tiles of one picture. Arrays in, matplotlib Figure out."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

TILE_GAP = 2


def tile_grid(tiles: np.ndarray, columns: int | None = None, fill: float = np.nan) -> np.ndarray:
    """Lay images (k, height, width[, 3]) out in one, row by row, a gap between them."""
    count, height, width = tiles.shape[:3]
    columns = columns or _even_columns(count)
    rows = math.ceil(count / columns)
    step_down, step_across = height + TILE_GAP, width + TILE_GAP
    size = rows * step_down - TILE_GAP, columns * step_across - TILE_GAP
    grid = np.full((*size, *tiles.shape[3:]), fill)
    for index, tile in enumerate(tiles):
        top, left = divmod(index, columns)
        grid[
            top * step_down : top * step_down + height,
            left * step_across : left * step_across + width,
        ] = tile
    return grid


def _even_columns(count: int) -> int:
    """A number of columns that fills the last row, if a page of 1:1 to 2:1 has one."""
    narrowest, widest = math.ceil(math.sqrt(count)), math.ceil(math.sqrt(2 * count))
    fitting = [columns for columns in range(narrowest, widest + 1) if count % columns == 0]
    return fitting[0] if fitting else math.ceil(math.sqrt(1.5 * count))


def feature_tiles(tiles: np.ndarray, title: str, own_scale: bool = True) -> Figure:
    """Atoms or filters as tiles around zero: red positive, blue negative, white zero.

    Those of colour images are drawn in colour, around middle grey for zero.

    Args:
        tiles: (l, height, width) or (l, height, width, 3), any units.
        title: what they are.
        own_scale: each tile over its own largest magnitude, else all over the largest of all.
    """
    is_coloured = tiles.ndim == 4
    largest = np.abs(tiles).max(axis=tuple(range(1, tiles.ndim)), keepdims=True)
    if not own_scale:
        largest = largest.max(keepdims=True)
    scaled = np.divide(tiles, largest, out=np.zeros_like(tiles), where=largest > 0)
    grid = tile_grid(scaled / 2 + 0.5, fill=1.0) if is_coloured else tile_grid(scaled)
    height = 7.1 * grid.shape[0] / grid.shape[1] + 0.45
    figure = Figure(figsize=(8.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.75")
    picture = axes.imshow(grid, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    _bare(axes)
    axes.set_title(title, fontsize=10)
    if is_coloured:
        return figure
    unit = "own largest magnitude" if own_scale else "largest magnitude of all"
    figure.colorbar(picture, ax=axes, label=f"value / {unit}", shrink=0.8, pad=0.01)
    return figure


def image_rows(rows: dict[str, np.ndarray], title: str) -> Figure:
    """Rows of images under each other, such as inputs and their reconstructions.

    Args:
        rows: images (k, height, width) or (k, height, width, 3) in pixels, [0, 1] black to white,
            by the name of the row.
        title: what they show.
    """
    count = len(next(iter(rows.values())))
    figure = Figure(figsize=(0.62 * count + 1.4, 0.72 * len(rows) + 0.55), layout="constrained")
    for axes, (name, images) in zip(
        figure.subplots(len(rows), 1, squeeze=False).flat, rows.items()
    ):
        grid = tile_grid(images, columns=count, fill=1.0)
        shown = grid if grid.ndim == 2 else grid.clip(0, 1)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        _bare(axes)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _bare(axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
