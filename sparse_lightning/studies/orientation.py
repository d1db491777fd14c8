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
