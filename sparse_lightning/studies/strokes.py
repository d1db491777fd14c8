"""Whether an atom is a stroke or a whole digit, whatever its background and pixel noise.

A stroke is short, and resembles no digit. An atom that is a whole digit is as large as digits are,
and nearly equal to one of them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def extents(tiles: np.ndarray, smoothing: float, level: float) -> np.ndarray:
    """How far the largest connected part of each tile reaches, as a share of the tile's side.

    The background, which is the median of the tile, is taken off, and the tile is smoothed, so
    that single pixels of noise do not count. A part is a connected set of pixels, diagonal
    neighbours included, whose absolute value is above a share of the largest. The largest is that
    with the greatest sum of squares, and it reaches as far as the longer side of its bounding box.

    Args:
        tiles: (k, height, width).
        smoothing: standard deviation of the Gaussian, in pixels.
        level: share of the largest absolute value from which on a pixel belongs to a part.

    Returns:
        (k,), between 0 and 1; 0 for a constant tile.
    """
    return np.array([_extent(tile, smoothing, level) for tile in tiles])


def _extent(tile: np.ndarray, smoothing: float, level: float) -> float:
    values = tile.astype(np.float64)
    values = ndimage.gaussian_filter(values - np.median(values), smoothing)
    size = np.abs(values)
    if size.max() <= 1e-9 * max(1.0, float(np.abs(tile).max())):
        return 0.0
    parts, count = ndimage.label(size > level * size.max(), structure=np.ones((3, 3)))
    energy = ndimage.sum_labels(values**2, parts, np.arange(1, count + 1))
    rows, columns = ndimage.find_objects(parts)[int(np.argmax(energy))]
    return max(rows.stop - rows.start, columns.stop - columns.start) / max(tile.shape)


def likeness(tiles: np.ndarray, images: np.ndarray, smoothing: float) -> np.ndarray:
    """Correlation of each tile with the image that is nearest to it, both smoothed.

    Args:
        tiles: (k, height, width).
        images: (n, height, width).
        smoothing: standard deviation of the Gaussian, in pixels.

    Returns:
        (k,), the largest correlation over pixels, between −1 and 1; 0 for a constant tile.
    """
    return (_standardised(tiles, smoothing) @ _standardised(images, smoothing).T).max(1)


def _standardised(tiles: np.ndarray, smoothing: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(tiles.astype(np.float64), smoothing, axes=(1, 2))
    rows = smooth.reshape(len(tiles), -1)
    rows = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-9)
