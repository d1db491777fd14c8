"""Gabor fits find the parameters that a tile was made with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparse_lightning.studies.gabor import fit_gabor
from sparse_lightning.studies.orientation import active_area


def gabor(
    orientation: float, frequency: float, along: float, across: float, row: float, column: float,
    phase: float, size: int = 28,
) -> np.ndarray:  # fmt: skip
    rows, columns = np.mgrid[:size, :size]
    travel = orientation - math.pi / 2
    right, up = columns - column, row - rows
    u = right * math.cos(travel) + up * math.sin(travel)
    v = -right * math.sin(travel) + up * math.cos(travel)
    envelope = np.exp(-((u / along) ** 2) / 2 - (v / across) ** 2 / 2)
    return envelope * np.cos(2 * math.pi * frequency * u + phase)


@pytest.mark.parametrize(
    ("orientation", "frequency", "along", "across", "row", "column", "phase"),
    [
        (1.2, 0.2, 2.0, 4.0, 10.0, 18.0, 1.4),
        (2.5, 0.06, 4.0, 6.0, 14.0, 14.0, 1.57),
        (0.05, 0.15, 3.0, 3.0, 8.0, 20.0, 0.0),
    ],
)
def test_parameters_are_found(orientation, frequency, along, across, row, column, phase):
    tile = gabor(orientation, frequency, along, across, row, column, phase)
    fit = fit_gabor(-3.7 * tile)
    assert fit.explained > 0.99
    turned = abs(fit.orientation - orientation) % math.pi
    assert min(turned, math.pi - turned) < 0.02
    assert fit.frequency == pytest.approx(frequency, abs=0.005)
    assert fit.size_along == pytest.approx(along, rel=0.05)
    assert fit.size_across == pytest.approx(across, rel=0.05)
    assert (fit.row, fit.column) == pytest.approx((row, column), abs=0.1)


def test_horizontal_stripes_have_orientation_zero():
    rows = np.mgrid[:28, :28][0]
    fit = fit_gabor(np.sin(2 * math.pi * 0.1 * rows) * np.exp(-((rows - 14) ** 2) / 32))
    assert min(fit.orientation, math.pi - fit.orientation) < 0.02


def test_noise_is_no_gabor_function_and_a_constant_nothing():
    noise = np.random.default_rng(0).standard_normal((3, 28, 28))
    assert max(fit_gabor(tile).explained for tile in noise) < 0.1
    flat = fit_gabor(np.full((28, 28), 0.3))
    assert flat.explained == 0
    assert math.isnan(flat.frequency)


def test_active_area_counts_the_pixels_that_hold_the_energy():
    tile = torch.zeros(4, 10, 10)
    tile[0, 0, :3] = 1.0
    tile[1] = 1.0
    tile[2, 0, 0], tile[2, 0, 1] = 10.0, 1.0
    assert active_area(tile).tolist() == pytest.approx([0.03, 0.9, 0.01, 0.0])
