r"""Whether a learned feature is oriented, and its mean frequency.

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
    power, down, across = _spectrum(tiles)
    orientation = torch.atan2(down, across).flatten() % math.pi
    centres = torch.arange(steps, dtype=torch.float64) * (math.pi / steps)
    distance = (orientation[:, None] - centres).abs()
    distance = torch.minimum(distance, math.pi - distance)
    # The origin has no orientation, and no power once the mean is gone.
    inside = (distance <= band / 2).double()
    return _share((power @ inside).amax(1), power.sum(1))


def mean_frequency(tiles: Tensor) -> Tensor:
    r"""Mean distance from the origin of the frequency plane, weighted by spectral energy.

    .. math:: \sum_f |f| P(f) \Big/ \sum_f P(f)

    White noise has about 0.38, the mean over the plane; what is smooth has less.

    Args:
        tiles: (k, height, width).

    Returns:
        (k,), in cycles per pixel; 0 for a constant tile.
    """
    power, down, across = _spectrum(tiles)
    return _share(power @ torch.hypot(down, across).flatten(), power.sum(1))


def _spectrum(tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Power of tiles without their means, (k, height·width), and the two axes' frequencies."""
    tiles = tiles.double() - tiles.double().mean(dim=(1, 2), keepdim=True)
    down, across = (torch.fft.fftfreq(n, dtype=torch.float64) for n in tiles.shape[1:])
    frequencies = torch.meshgrid(down, across, indexing="ij")
    return torch.fft.fft2(tiles).abs().square().flatten(1), *frequencies


def _share(part: Tensor, total: Tensor) -> Tensor:
    """Their quotient (k,); 0 where there is no energy."""
    share = part / total.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(total > 1e-20, share, 0.0)
