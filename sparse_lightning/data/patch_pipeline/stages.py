"""Every stage of the way from one photograph to one patch, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from sparse_lightning.data.patch_pipeline.contrast import local_contrast_normalize
from sparse_lightning.data.patch_pipeline.crops import standardise
from sparse_lightning.data.patch_pipeline.decode import read_grey, without_decoder_warnings
from sparse_lightning.data.patch_pipeline.recipe import Recipe
from sparse_lightning.errors import SettingError


@dataclass(frozen=True)
class PatchStages:
    """A photograph on its way to a patch.

    Attributes:
        image: (height, width, 3), colours in [0, 1], resized.
        grey: (height, width), in [0, 1].
        top, left: place of the crop's upper left corner in ``grey``, in pixels.
        margin: pixels that normalisation takes off each side of the crop.
        crop: (crop size, crop size), grey in [0, 1].
        centred: (patch size, patch size), standardised grey without its local mean.
        normalized: (patch size, patch size), the same over its local standard deviation.
    """

    image: np.ndarray
    grey: np.ndarray
    top: int
    left: int
    margin: int
    crop: np.ndarray
    centred: np.ndarray
    normalized: np.ndarray


def patch_stages(path: Path, top: int, left: int, recipe: Recipe | None = None) -> PatchStages:
    """Follow one crop of a photograph through the pipeline, a batch of one crop.

    Args:
        path: the image file.
        top, left: place of the crop in the resized image, in pixels.
        recipe: sizes and units, None for the defaults.

    Raises:
        SettingError: a crop that reaches beyond the image.
    """
    recipe = recipe or Recipe()
    with without_decoder_warnings():
        grey = read_grey(path, recipe.shorter_side, recipe.crop_size)
    height, width = grey.shape
    size = recipe.crop_size
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise SettingError(
            f"A crop of {size} pixels at top={top}, left={left} reaches beyond the image of "
            f"{height}×{width}: choose a place inside."
        )
    with Image.open(path) as file:
        colour = ImageOps.exif_transpose(file).convert("RGB").resize((width, height))
    crop = grey[top : top + size, left : left + size]
    normalized, _, std = local_contrast_normalize(
        standardise(crop, recipe), recipe.kernel_size, recipe.kernel_sigma
    )
    return PatchStages(
        image=np.asarray(colour) / 255,
        grey=grey.numpy() / 255,
        top=top,
        left=left,
        margin=recipe.kernel_size - 1,
        crop=crop.numpy() / 255,
        centred=torch.mul(normalized, std).numpy(),
        normalized=normalized.numpy(),
    )
