"""Vectors as pictures, whatever the order of their axes."""

from __future__ import annotations

import math

import numpy as np

CHANNELS = (1, 3)


def as_pictures(vectors: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Vectors (k, d) as grey images (k, height, width), or colours (k, height, width, 3).

    Args:
        vectors: flattened images.
        image_shape: (h, w), or with 1 or 3 channels, first (c, h, w) or last (h, w, c).
    """
    images = vectors.reshape(-1, *image_shape)
    if len(image_shape) == 3 and image_shape[-1] not in CHANNELS:
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images


def picture_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(height, width) of grey images, (height, width, 3) of colours."""
    return as_pictures(np.empty((1, math.prod(image_shape))), image_shape).shape[1:]


def grey(tiles: np.ndarray) -> np.ndarray:
    """Pictures (k, height, width): the mean of the channels of those in colour."""
    return tiles.mean(-1) if tiles.ndim == 4 else tiles
