r"""What can be measured of the features that a model has learned.

An oriented feature, such as a stroke or a Gabor function, has its spectral energy near one line
through the origin of the frequency plane; noise has it everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def orientation_share(tiles: Tensor, band: float = math.pi / 4, steps: int = 36) -> Tensor:
    r"""Largest share of a tile's spectral energy in one band of orientations.

    With P(f) the power spectrum of the tile without its mean, and θ(f) the orientation of a
    frequency, modulo π,

    .. math:: \max_\phi \sum_{|\theta(f) - \phi| \le band / 2} P(f) \Big/ \sum_f P(f) .

    White noise has about band/π and a little more, because of the maximum; a grating has 1.

    Args:
        tiles: (k, height, width).
        band: width of the band in radians.
        steps: number of orientations φ that are tried.

    Returns:
        (k,), between 0 and 1; 0 for a constant tile.
    """
    tiles = tiles.double() - tiles.double().mean(dim=(1, 2), keepdim=True)
    power = torch.fft.fft2(tiles).abs().square().flatten(1)
    down = torch.fft.fftfreq(tiles.shape[1], dtype=torch.float64)
    across = torch.fft.fftfreq(tiles.shape[2], dtype=torch.float64)
    orientation = torch.atan2(down[:, None], across[None, :]).flatten() % math.pi
    centres = torch.arange(steps, dtype=torch.float64) * (math.pi / steps)
    distance = (orientation[:, None] - centres).abs()
    distance = torch.minimum(distance, math.pi - distance)
    # The origin has no orientation, and no power once the mean is gone.
    inside = (distance <= band / 2).double()
    total = power.sum(1)
    share = (power @ inside).amax(1) / total.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(total > 1e-20, share, 0.0)


def active_area(tiles: Tensor, share: float = 0.9) -> Tensor:
    """Smallest share of a tile's pixels that holds ``share`` of its energy.

    A stroke covers few pixels, a whole digit many. At a share of 0.9 white noise covers 0.44 of
    them if it is Gaussian and 0.54 if it is uniform, and a constant tile 0.9.

    Args:
        tiles: (k, height, width).
        share: of the sum of squares.

    Returns:
        (k,), between 0 and 1; 0 for a tile of zeros.
    """
    energy = tiles.double().square().flatten(1).sort(dim=1, descending=True).values
    total = energy.sum(1, keepdim=True)
    # One pixel more than those whose sum stays below.
    needed = (energy.cumsum(1) < share * total).sum(1) + 1
    return torch.where(total.squeeze(1) > 0, needed / energy.shape[1], 0.0)
