r"""Gabor functions fitted to atoms: orientation, frequency and size.

.. math:: g(u, v) = e^{-\frac12 (u^2/s_u^2 + v^2/s_v^2)}
          \big(a \cos 2\pi f u + b \sin 2\pi f u\big),

where :math:`(u, v)` are coordinates around the centre, u along the direction in which the wave
travels. a and b give amplitude and phase. They enter linearly, and are solved for inside the fit
(variable projection: Golub & Pereyra 1973). This leaves six parameters: the centre, the two sizes
and the frequency vector.

A good fit alone does not make an atom Gabor-like: a grating fills the tile, and a blob does not
oscillate. Two conditions are added. The envelope, some standard deviations wide, must end inside
the tile along at least one axis. At least one cycle of the wave must fit into the envelope (Ringach
2002 measures this by σ · f). Atoms with scrambled phases keep their power spectrum and lose their
place. They show how often chance is taken for a Gabor function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

# A wave may be so slow that a blob or its derivative, an edge, is left of it. None is faster than
# the pixels can show.
SMALLEST_SIZE, LARGEST_SIZE = 0.7, 30.0


@dataclass(frozen=True)
class GaborFit:
    """The Gabor function nearest to a tile.

    Attributes:
        explained: share of the tile's energy (around its mean) that the fit accounts for, 0 to 1.
        orientation: of the stripes, in radians from 0 to π; 0 is horizontal, counter-clockwise.
        frequency: cycles per pixel.
        size_along: standard deviation of the envelope along the wave's direction, in pixels.
        size_across: the same along the stripes.
        row, column: the centre, in pixels from the top left.
    """

    explained: float
    orientation: float
    frequency: float
    size_along: float
    size_across: float
    row: float
    column: float


def are_gabor_like(
    fits: pd.DataFrame,
    shape: tuple[int, int],
    threshold: float,
    envelope_width: float,
    least_cycles: float,
) -> pd.Series:
    """Which fits make an atom Gabor-like.

    Args:
        fits: with the columns of `GaborFit`.
        shape: height and width of the tile, in pixels.
        threshold: share of the energy that the fit must explain.
        envelope_width: of the envelope, in its standard deviations.
        least_cycles: of the wave, within that width.

    Returns:
        Booleans, one for each row.
    """
    height, width = shape
    inside = fits["row"].between(-0.5, height - 0.5) & fits["column"].between(-0.5, width - 0.5)
    side = min(shape)
    narrow = envelope_width * fits[["size_along", "size_across"]].min(axis=1) <= side
    cycles = envelope_width * fits["size_along"].clip(upper=side / envelope_width)
    oscillates = cycles * fits["frequency"] >= least_cycles
    return (fits["explained"] >= threshold) & inside & narrow & oscillates


def phase_scrambled(tile: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A tile with the amplitudes of this one's Fourier transform and the phases of noise."""
    noise = np.fft.rfft2(generator.standard_normal(tile.shape))
    amplitude = np.abs(np.fft.rfft2(tile.astype(np.float64)))
    return np.fft.irfft2(amplitude * noise / np.abs(noise), tile.shape)


def fit_gabor(tile: np.ndarray, starts: int = 3) -> GaborFit:
    """Fit a Gabor function to a tile (height, width) by least squares, its mean taken off.

    Args:
        tile: any units.
        starts: how many peaks of the tile's power spectrum to start from.
    """
    tile = np.asarray(tile, dtype=np.float64)
    tile = tile - tile.mean()
    energy = float((tile**2).sum())
    if energy < 1e-20:
        return GaborFit(0.0, *([math.nan] * 6))
    tile = tile / math.sqrt(energy)
    bounds = _bounds(tile.shape)
    fits = [
        least_squares(
            _residual, np.clip(start, *bounds), bounds=bounds, args=(tile,), x_scale=_SCALES,
            xtol=1e-5, ftol=1e-5, max_nfev=60,
        )
        for start in _starts(tile, starts)
    ]  # fmt: skip
    best = min(fits, key=lambda fit: fit.cost)
    row, column, along, across, down, right = best.x
    # The wave travels along (down, right) in image coordinates; its stripes at a right angle.
    travel = math.atan2(-down, right)
    return GaborFit(
        explained=max(0.0, 1.0 - 2.0 * best.cost),
        orientation=(travel + math.pi / 2) % math.pi,
        frequency=math.hypot(down, right),
        size_along=math.exp(along),
        size_across=math.exp(across),
        row=row,
        column=column,
    )


_SCALES = np.array([1.0, 1.0, 0.3, 0.3, 0.03, 0.03])


def _bounds(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    sizes = math.log(SMALLEST_SIZE), math.log(LARGEST_SIZE)
    lower = np.array([-2.0, -2.0, sizes[0], sizes[0], -0.5, -0.5])
    upper = np.array([shape[0] + 1.0, shape[1] + 1.0, sizes[1], sizes[1], 0.5, 0.5])
    return lower, upper


def _starts(tile: np.ndarray, count: int) -> list[np.ndarray]:
    """Centre and spread of the tile's energy, with each of its strongest frequencies."""
    weight = tile**2
    rows, columns = np.mgrid[: tile.shape[0], : tile.shape[1]]
    row, column = (weight * rows).sum(), (weight * columns).sum()
    spread = (weight * ((rows - row) ** 2 + (columns - column) ** 2)).sum() / 2
    # The envelope's square has half its variance.
    size = math.log(np.clip(math.sqrt(2 * spread), SMALLEST_SIZE, LARGEST_SIZE))
    padded = tuple(2 * side for side in tile.shape)
    power = np.abs(np.fft.rfft2(tile, padded)) ** 2
    down, right = np.fft.fftfreq(padded[0]), np.fft.rfftfreq(padded[1])
    starts = []
    for _ in range(count):
        at = np.unravel_index(power.argmax(), power.shape)
        starts.append(np.array([row, column, size, size, down[at[0]], right[at[1]]]))
        near = np.abs(((down - down[at[0]] + 0.5) % 1) - 0.5)[:, None] < 2 / tile.shape[0]
        power = np.where(near & (np.abs(right - right[at[1]]) < 2 / tile.shape[1]), 0.0, power)
    return starts


def _residual(parameters: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """What is left of the tile after the best a and b, (height · width,)."""
    row, column, along, across, down, right = parameters
    frequency = max(math.hypot(down, right), 1e-6)
    rows = np.arange(tile.shape[0])[:, None] - row
    columns = np.arange(tile.shape[1])[None, :] - column
    u = (rows * down + columns * right) / frequency
    v = (rows * right - columns * down) / frequency
    envelope = np.exp(-0.5 * ((u * math.exp(-along)) ** 2 + (v * math.exp(-across)) ** 2))
    phase = 2 * math.pi * frequency * u
    cosine, sine = (envelope * np.cos(phase)).ravel(), (envelope * np.sin(phase)).ravel()
    target = tile.ravel()
    gram = np.array([[cosine @ cosine, cosine @ sine], [cosine @ sine, sine @ sine]])
    # A wave too slow to have a sine leaves it out.
    gram += 1e-9 * np.trace(gram) * np.eye(2) + 1e-300
    first, second = np.linalg.solve(gram, [cosine @ target, sine @ target])
    return target - first * cosine - second * sine
