"""What shapes a set of patches, and nothing else: equal recipes on equal files, equal bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparse_lightning.errors import (
    SettingError,
    require_count,
    require_non_negative,
    require_positive,
)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Recipe:
    """The settings of natural image patches.

    Args:
        num_train, num_val, num_test: patches in each split.
        patch_size: side of a patch in pixels, after normalisation.
        crops_per_image: patches cut from each image, or None for as many as it takes to need
            each image once.
        threshold: smallest standard deviation of a normalised patch; others are drawn again.
        shorter_side: pixels to which an image's shorter side is resized first.
        grey_mean, grey_std: grey in [0, 1] becomes (grey − mean) / std.
        kernel_size, kernel_sigma: Gaussian window of local contrast normalisation, in pixels.
        split_seed: fixes which images go to which split, and where they are cropped.

    Raises:
        SettingError: a setting that cannot work.
    """

    num_train: int = 200_000
    num_val: int = 20_000
    num_test: int = 20_000
    patch_size: int = 28
    crops_per_image: int | None = None
    threshold: float = 0.5
    shorter_side: int = 256
    grey_mean: float = 0.457
    grey_std: float = 0.259
    kernel_size: int = 13
    kernel_sigma: float = 5.0
    split_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val", "num_test", "kernel_size"):
            require_count(f"data.{name}", getattr(self, name))
        if self.crops_per_image is not None:
            require_count("data.crops_per_image", self.crops_per_image)
        if self.patch_size < 2:
            raise SettingError(f"data.patch_size={self.patch_size} must be at least 2.")
        if self.kernel_size % 2 == 0:
            raise SettingError(f"data.kernel_size={self.kernel_size} must be odd.")
        require_non_negative("data.threshold", self.threshold)
        if not math.isfinite(self.grey_mean):
            raise SettingError(f"data.grey_mean={self.grey_mean} must be a finite number.")
        require_positive("data.grey_std", self.grey_std)
        require_positive("data.kernel_sigma", self.kernel_sigma)
        if self.shorter_side < self.crop_size:
            raise SettingError(
                f"data.shorter_side={self.shorter_side} must be at least {self.crop_size}: a patch "
                f"of data.patch_size={self.patch_size} is normalised within a crop of that size."
            )

        if self.threshold > self.largest_deviation:
            raise SettingError(
                f"data.threshold={self.threshold} is more than the {self.largest_deviation:.2f} "
                f"that any patch can have with data.kernel_size={self.kernel_size} and "
                f"data.kernel_sigma={self.kernel_sigma}: the paper's is 0.5."
            )

    @property
    def largest_deviation(self) -> float:
        r"""What no patch's standard deviation is above.

        The local variance of a pixel holds its own square at the weight w of the window's middle,
        so that a normalised pixel is at most :math:`1/\sqrt{w}`, and w is the square of one axis'.
        """
        half = self.kernel_size // 2
        window = [
            math.exp(-(offset**2) / (2 * self.kernel_sigma**2)) for offset in range(-half, half + 1)
        ]
        dim = self.patch_size**2
        return sum(window) * math.sqrt(dim / (dim - 1))

    @property
    def crop_size(self) -> int:
        """Side of the crop that shrinks to a patch when it is filtered twice, in pixels."""
        return self.patch_size + 2 * (self.kernel_size - 1)

    def number(self, split: str) -> int:
        """Patches asked for in a split."""
        return getattr(self, f"num_{split}")
