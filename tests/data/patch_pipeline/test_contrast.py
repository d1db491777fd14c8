"""Local contrast normalisation against its formula; the authors' numbers are in test_authors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from sparse_lightning.data.patch_pipeline.contrast import gaussian_filter, local_contrast_normalize
from sparse_lightning.errors import SettingError

AUTHORS = Path(__file__).parents[1] / "authors" / "lcn.npz"


@pytest.fixture(scope="module")
def authors():
    with np.load(AUTHORS, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_filter_is_a_convolution_with_the_authors_kernel(authors):
    images = torch.from_numpy(authors["images"])
    expected = conv2d(images, torch.from_numpy(authors["kernel"])[None, None])[:, 0]
    torch.testing.assert_close(gaussian_filter(images[:, 0], 13, 5.0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 52), (3, 30, 45), (2, 3, 25, 25)])
def test_undone_by_its_own_statistics(shape, dtype):
    images = torch.randn(shape, dtype=dtype)
    normalized, mean, std = local_contrast_normalize(images)
    assert normalized.shape == (*shape[:-2], shape[-2] - 24, shape[-1] - 24)
    assert normalized.dtype is dtype
    torch.testing.assert_close(normalized * std + mean, images[..., 12:-12, 12:-12])


def test_floor_is_the_mean_over_the_batch_and_can_be_given():
    images = torch.randn(4, 52, 52, dtype=torch.float64)
    images[0] *= 1e-3
    _, _, std = local_contrast_normalize(images)
    _, _, raw = local_contrast_normalize(images, floor=0.0)
    torch.testing.assert_close(std.min(), raw.mean())
    alone = local_contrast_normalize(images[:1], floor=std.min())
    torch.testing.assert_close(alone[2], std[:1])


def test_flat_images_stay_finite():
    normalized, mean, std = local_contrast_normalize(torch.full((2, 52, 52), 0.3))
    assert normalized.abs().max() < 1e-2
    torch.testing.assert_close(mean, torch.full_like(mean, 0.3))
    assert std.min() == pytest.approx(1e-4)


def test_windows_that_cannot_work_are_refused():
    images = torch.randn(2, 20, 52)
    with pytest.raises(SettingError, match=r"kernel_size=13 needs images of 25×25"):
        local_contrast_normalize(images)
    with pytest.raises(SettingError, match=r"kernel_size=12 must be odd"):
        local_contrast_normalize(images, kernel_size=12)
    with pytest.raises(SettingError, match=r"kernel_sigma=0"):
        local_contrast_normalize(images, kernel_size=3, sigma=0)
