"""What spectra tell, on tiles whose orientation and frequency are known."""

from __future__ import annotations

import math

import pytest
import torch

from sparse_lightning.studies.orientation import mean_frequency, orientation_share


def gratings(angles: list[float], frequency: float = 0.25, size: int = 28) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    window = torch.exp(-((rows - size / 2) ** 2 + (columns - size / 2) ** 2) / (2 * 4.0**2))
    waves = [
        torch.cos(2 * math.pi * frequency * (columns * math.cos(a) + rows * math.sin(a)))
        for a in angles
    ]
    return torch.stack([wave * window for wave in waves])


def test_gabor_functions_have_nearly_all_of_it():
    shares = orientation_share(gratings([0.0, 0.3, math.pi / 4, 2.0, 3.1]))
    assert (shares > 0.95).all()
    assert (shares <= 1).all()


def test_two_orientations_have_half_of_it_each():
    pair = gratings([0.2, 0.2 + math.pi / 2]).sum(0, keepdim=True)
    assert float(orientation_share(pair)) == pytest.approx(0.5, abs=0.03)


def test_white_noise_has_a_quarter_and_a_little():
    shares = orientation_share(torch.randn(200, 28, 28))
    assert 0.25 < float(shares.mean()) < 0.36


def test_scale_and_mean_do_not_matter_and_constants_have_none():
    tiles = torch.randn(5, 28, 28)
    torch.testing.assert_close(orientation_share(7 * tiles + 3), orientation_share(tiles))
    assert float(orientation_share(torch.full((1, 28, 28), 0.3))) == 0


@pytest.mark.parametrize("frequency", [0.1, 0.25, 0.4])
def test_mean_frequency_is_that_of_a_wave(frequency):
    found = mean_frequency(gratings([0.3, 1.2], frequency))
    torch.testing.assert_close(found, torch.full((2,), frequency).double(), atol=0.01, rtol=0)


def test_mean_frequency_of_white_noise_is_that_of_the_plane():
    axis = torch.fft.fftfreq(28).double()
    plane = torch.hypot(axis[:, None], axis[None, :]).mean()
    tiles = torch.randn(300, 28, 28, generator=torch.Generator().manual_seed(0))
    assert float(mean_frequency(tiles).mean()) == pytest.approx(float(plane), abs=0.005)
    assert float(mean_frequency(torch.full((1, 28, 28), 0.3))) == 0
