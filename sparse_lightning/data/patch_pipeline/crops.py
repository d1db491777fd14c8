"""Patches cut at random from grey images and normalised, in batches of some hundreds of crops.

A patch is kept as its grey pixels and its local mean and standard deviation; the input of a model
is computed from these three when it is fetched, which takes half the memory of keeping it too.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sparse_lightning.data.patch_pipeline.contrast import local_contrast_normalize
from sparse_lightning.data.patch_pipeline.recipe import Recipe

CROPS_IN_BATCH = 512
MOST_DRAWS = 20  # for each patch, on average over an image's in a batch


def record_type(patch_size: int) -> np.dtype:
    """One patch: grey bytes, local statistics in standardised units, index of its image."""
    dim = patch_size**2
    return np.dtype(
        [
            ("pixels", np.uint8, dim),
            ("local_mean", np.float16, dim),
            ("local_std", np.float16, dim),
            ("image", np.int32),
        ]
    )


def seeded_generator(*parts: int | str) -> torch.Generator:
    """Random numbers that depend on these parts alone."""
    text = "/".join(str(part) for part in parts)
    digest = hashlib.sha256(os.fsencode(text)).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def draw_patches(
    greys: Sequence[Tensor],
    indices: Sequence[int],
    generators: Sequence[torch.Generator],
    crops_per_image: int,
    recipe: Recipe,
) -> np.ndarray:
    """Cut patches from a group of images, the same number from each.

    A batch of crops, over which the floor of the local standard deviation is averaged, has crops
    of every image of the group. Patches under the threshold are drawn again, with the floor of
    their batch; an image that has too few others gives fewer.

    Args:
        greys: images (height, width), uint8.
        indices: what records call each image.
        generators: one for each image, which alone decides where it is cropped.
        crops_per_image: patches to cut from each.
        recipe: sizes, units and threshold.

    Returns:
        (n,) of `record_type`.
    """
    records = [np.empty(0, record_type(recipe.patch_size))]
    windows = [all_crops(grey, recipe.crop_size) for grey in greys]
    batches = round(crops_per_image * len(greys) / CROPS_IN_BATCH)
    batches = min(max(1, batches), crops_per_image) if greys else 0
    for batch in range(batches):
        done, until = (part * crops_per_image // batches for part in (batch, batch + 1))
        records += _draw_batch(windows, np.asarray(indices), generators, until - done, recipe)
    return np.concatenate(records)


def _draw_batch(
    windows: Sequence[np.ndarray],
    indices: np.ndarray,
    generators: Sequence[torch.Generator],
    count: int,
    recipe: Recipe,
) -> Iterator[np.ndarray]:
    """Records of ``count`` patches of each image, in as many pieces as it takes draws."""
    floor = None
    wanted = np.full(len(windows), count)
    drawn, passed, missing = np.zeros_like(wanted), np.zeros_like(wanted), wanted.copy()
    while wanted.any():
        crops = np.concatenate(
            [
                random_crops(window, number, generator)
                for window, number, generator in zip(windows, wanted, generators)
                if number
            ]
        )
        standardised = standardise(torch.from_numpy(crops), recipe)
        normalized, mean, std = local_contrast_normalize(
            standardised, recipe.kernel_size, recipe.kernel_sigma, floor
        )
        floor = std.min() if floor is None else floor
        kept = (_deviation(normalized.flatten(1)) >= recipe.threshold).numpy()
        owners = np.repeat(np.arange(len(windows)), wanted)
        drawn, passed = drawn + wanted, passed + np.bincount(owners[kept], minlength=len(windows))
        missing = missing - _keep_at_most(missing, kept, owners)
        yield _records(crops, mean, std, indices[owners], kept, recipe)
        # As many as will do at the rate so far (Laplace's rule), unless the image is past hope.
        likely = np.ceil(missing * (drawn + 2) / (passed + 1)).astype(int)
        wanted = np.where(drawn < MOST_DRAWS * count, np.minimum(likely, 4 * count), 0)


def deviations(
    greys: Sequence[Tensor], generators: Sequence[torch.Generator], count: int, recipe: Recipe
) -> Tensor:
    """Standard deviations (n,) of ``count`` normalised patches of each image, whatever they are."""
    crops = np.concatenate(
        [
            random_crops(all_crops(grey, recipe.crop_size), count, generator)
            for grey, generator in zip(greys, generators)
        ]
    )
    standardised = standardise(torch.from_numpy(crops), recipe)
    normalized, _, _ = local_contrast_normalize(
        standardised, recipe.kernel_size, recipe.kernel_sigma
    )
    return _deviation(normalized.flatten(1))


def _keep_at_most(most: np.ndarray, kept: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Clear what ``kept`` has beyond the first so many of each image, and count the others."""
    ranks = np.cumsum(kept)
    before = np.concatenate([[0], np.bincount(owners[kept], minlength=len(most)).cumsum()])
    kept &= ranks - before[owners] <= most[owners]
    return np.bincount(owners[kept], minlength=len(most))


def all_crops(grey: Tensor, size: int) -> np.ndarray:
    """View (tops, lefts, size, size) of every square of an image (height, width)."""
    return np.lib.stride_tricks.sliding_window_view(grey.numpy(), (size, size))


def random_crops(windows: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """Squares (count, size, size) at uniformly random places, from the view of `all_crops`."""
    tops, lefts = windows.shape[:2]
    places = torch.randint(tops * lefts, (count,), generator=generator).numpy()
    return windows[np.unravel_index(places, (tops, lefts))]


def _deviation(patches: Tensor) -> Tensor:
    """Standard deviation of each row (n,), in the way that is fast for many short rows."""
    centred = patches - patches.mean(1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=1) / math.sqrt(patches.shape[1] - 1)


def standardise(grey: Tensor, recipe: Recipe) -> Tensor:
    """Grey bytes as standardised float32: (grey / 255 − mean) / std."""
    scale = 1 / (255 * recipe.grey_std)
    return grey.float().mul_(scale).sub_(recipe.grey_mean / recipe.grey_std)


def _records(
    crops: np.ndarray,
    mean: Tensor,
    std: Tensor,
    images: np.ndarray,
    kept: np.ndarray,
    recipe: Recipe,
) -> np.ndarray:
    records = np.empty(int(kept.sum()), record_type(recipe.patch_size))
    margin = recipe.kernel_size - 1
    end = margin + recipe.patch_size
    records["pixels"] = crops[:, margin:end, margin:end].reshape(len(crops), -1)[kept]
    for name, statistic in (("local_mean", mean), ("local_std", std)):
        records[name] = statistic.flatten(1).half().numpy()[kept]
    records["image"] = images[kept]
    return records
