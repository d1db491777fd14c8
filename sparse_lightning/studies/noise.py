r"""How much of a feature is white noise, whatever else it shows.

The finest diagonal wavelet coefficients of white noise all have its standard deviation σ. A stroke
or a smooth shape has such coefficients in few places or none, so that their median tells of the
noise alone:

.. math:: \hat\sigma = \operatorname{median}_k |w_k| \,/\, \Phi^{-1}(3/4) .

Source: Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994.
"""

from __future__ import annotations

import numpy as np
import pywt
from scipy import stats


def noise_share(tiles: np.ndarray) -> np.ndarray:
    r"""Share of white noise in the variance of each tile, :math:`\min(1, \hat\sigma^2 / s^2)`.

    Args:
        tiles: (k, height, width).

    Returns:
        (k,), between 0 and 1; 0 for a constant tile.
    """
    tiles = tiles.astype(np.float64)
    _, (_, _, diagonal) = pywt.dwt2(tiles, "db2", mode="periodization", axes=(1, 2))
    deviation = np.median(np.abs(diagonal), axis=(1, 2)) / stats.norm.ppf(0.75)
    variance = tiles.var(axis=(1, 2))
    is_constant = variance <= 1e-18 * np.square(tiles).mean(axis=(1, 2))
    share = deviation**2 / np.where(is_constant, 1.0, variance)
    return np.where(is_constant, 0.0, np.minimum(share, 1.0))
