"""Denoisers of scikit-image that sparse codes are compared with.

They work on the standardised image. There the noise has one known standard deviation σ everywhere,
also for patches that were normalised by their local contrast. Their free settings are chosen on
validation images by PSNR.
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet
from torch import Tensor

from sparse_lightning.data.batch import Batch
from sparse_lightning.metrics import image_psnr


def _total_variation(image: np.ndarray, level: float, setting: float) -> np.ndarray:
    return denoise_tv_chambolle(image, weight=setting * level)


def _wavelet(image: np.ndarray, level: float, setting: float) -> np.ndarray:
    return denoise_wavelet(image, sigma=setting * level, rescale_sigma=False)


def _non_local_means(image: np.ndarray, level: float, setting: float) -> np.ndarray:
    return denoise_nl_means(image, h=setting * level, sigma=level, fast_mode=True, **PATCHES)


# Pixels that non-local means compare, and that they look for a likeness in.
PATCHES = {"patch_size": 5, "patch_distance": 6}


# Each with the settings, in units of σ, to choose from.
BASELINES = {
    "total variation": (_total_variation, (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)),
    "wavelet": (_wavelet, (0.5, 0.75, 1.0, 1.5)),
    "non-local means": (_non_local_means, (0.2, 0.4, 0.6, 0.8, 1.0)),
}


def denoise(
    name: str, noisy: Tensor, level: float, setting: float, image_shape: tuple[int, int]
) -> Tensor:
    """Denoise standardised images (n, d) one by one, with a baseline.

    Args:
        name: of the baseline, a key of `BASELINES`.
        noisy: the images.
        level: σ of the noise.
        setting: weight of total variation, threshold of the wavelets or bandwidth of non-local
            means, in units of σ.
        image_shape: height and width.
    """
    function, _ = BASELINES[name]
    images = noisy.double().reshape(-1, *image_shape).numpy()
    result = np.stack([function(image, level, setting) for image in images])
    return torch.from_numpy(result).reshape(noisy.shape).to(noisy.dtype)


def choose_setting(
    name: str,
    validation: list[tuple[Batch, Tensor]],
    level: float,
    image_shape: tuple[int, int],
) -> float:
    """The setting with the highest mean PSNR over validation batches and their noisy inputs."""

    def quality(setting: float) -> float:
        psnr = [
            image_psnr(
                batch.to_pixels(denoise(name, noisy, level, setting, image_shape)),
                batch.to_pixels(batch.inputs),
            )
            for batch, noisy in validation
        ]
        return float(torch.cat(psnr).mean())

    return max(BASELINES[name][1], key=quality)
