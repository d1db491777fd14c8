"""The measures of strokes and digits, calibrated on digits and on strokes cut from them."""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import pytest

from sparse_lightning.studies.strokes import extents, likeness

SMOOTHING, LEVEL = 1.0, 0.35
DISTURBANCES = [(0.0, 0.0), (3.0, 0.0), (-1.0, 0.0), (0.0, 0.1), (2.0, 0.1)]


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    file = files("sparse_lightning.data") / "idx" / "t10k-images-idx3-ubyte.gz"
    raw = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)
    return raw[: 1600 * 784].reshape(-1, 28, 28) / 255


@pytest.fixture(scope="module")
def strokes(digits: np.ndarray) -> np.ndarray:
    """What of each digit is within 5 pixels of one of its pixels."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]

    def cut(digit: np.ndarray) -> np.ndarray:
        row, column = generator.choice(np.argwhere(digit > 0.5))
        return digit * ((rows - row) ** 2 + (columns - column) ** 2 <= 25)

    return np.stack([cut(digit) for digit in digits[:100]])


def disturbed(tiles: np.ndarray, background: float, noise: float) -> np.ndarray:
    return tiles + background + noise * np.random.default_rng(1).standard_normal(tiles.shape)


@pytest.mark.parametrize(("background", "noise"), DISTURBANCES)
def test_digits_reach_far_and_strokes_do_not(digits, strokes, background, noise):
    far = extents(disturbed(digits[:100], background, noise), SMOOTHING, LEVEL)
    near = extents(disturbed(strokes, background, noise), SMOOTHING, LEVEL)
    assert np.quantile(far, 0.05) > 0.6
    assert np.quantile(near, 0.95) < 0.45
    assert np.median(far) == pytest.approx(0.71, abs=0.04)
    assert np.median(near) == pytest.approx(0.32, abs=0.04)


@pytest.mark.parametrize(("background", "noise"), DISTURBANCES)
def test_digits_are_like_digits_and_strokes_are_not(digits, strokes, background, noise):
    others = digits[200:]
    whole = likeness(disturbed(digits[:100], background, noise), others, SMOOTHING)
    part = likeness(disturbed(strokes, background, noise), others, SMOOTHING)
    assert np.median(whole) == pytest.approx(0.91, abs=0.02)
    assert np.median(part) == pytest.approx(0.6, abs=0.04)
    assert np.quantile(whole, 0.05) > np.quantile(part, 0.9)


def test_sign_and_scale_do_not_matter_to_the_extent_and_constants_have_none(digits):
    known = extents(digits[:5], SMOOTHING, LEVEL)
    np.testing.assert_array_equal(extents(-7 * digits[:5], SMOOTHING, LEVEL), known)
    flat = np.full((1, 28, 28), 0.3)
    assert extents(flat, SMOOTHING, LEVEL) == 0
    assert likeness(flat, digits[:5], SMOOTHING) == 0


def test_the_extent_is_that_of_the_largest_part():
    tile = np.zeros((1, 20, 20))
    tile[0, 2:12, 4:7] = 1.0
    tile[0, 15:17, 15:17] = 1.0
    # Smoothed, the bar of 10 pixels keeps its length.
    assert extents(tile, SMOOTHING, LEVEL)[0] == pytest.approx(0.5, abs=0.051)
    assert likeness(tile, tile, SMOOTHING)[0] == pytest.approx(1)


def test_diagonal_neighbours_are_of_one_part():
    tile = np.zeros((1, 20, 20))
    tile[0, range(3, 13), range(5, 15)] = 1.0
    assert extents(tile, 0.0, LEVEL)[0] == 10 / 20


def test_the_largest_part_is_that_of_most_energy_and_not_of_most_pixels():
    tile = np.zeros((1, 20, 20))
    tile[0, 2:4, 2:4] = -10.0
    tile[0, 8:14, 8:11] = 4.0
    # Sums of squares of 4 · 100 and 18 · 16.
    assert extents(tile, 0.0, LEVEL)[0] == 2 / 20
