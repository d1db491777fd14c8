"""Gabor fits find the parameters that a tile was made with."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import SIZE, TinyData, TinyModel

from sparse_lightning.studies.features import features
from sparse_lightning.studies.gabor import are_gabor_like, fit_gabor, phase_scrambled
from sparse_lightning.studies.result_cache import ResultCache


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


def alike(*tiles: np.ndarray) -> list[bool]:
    fits = pd.DataFrame([asdict(fit_gabor(tile)) for tile in tiles])
    return are_gabor_like(fits, (28, 28), 0.5, 4.0, 1.0).to_list()


def grating(orientation: float, frequency: float) -> np.ndarray:
    return gabor(orientation, frequency, 1e6, 1e6, 13, 13, 0.4)


def test_gabor_functions_are_gabor_like():
    square = gabor(1.2, 0.2, 2.5, 4.0, 10, 18, 1.4)
    # Narrow along its wave, and as long as the tile.
    bar = gabor(0.4, 0.12, 3.5, 25.0, 14, 14, 0.0)
    at_border = gabor(2.0, 0.15, 3.0, 3.0, 4, 20, 0.7)
    noisy = square + 0.1 * np.random.default_rng(0).standard_normal(square.shape)
    assert alike(square, bar, at_border, noisy) == [True] * 4


def test_gratings_edges_blobs_and_noise_are_not():
    edge = np.sign(gabor(1.0, 0.001, 1e6, 1e6, 13, 13, -math.pi / 2))
    blob = gabor(0.0, 0.0, 3.0, 4.0, 13, 13, 0.0)
    noise = np.random.default_rng(0).standard_normal((28, 28))
    tiles = [grating(0.3, 0.1), grating(1.4, 0.25), grating(2.0, 0.05), edge, blob, noise]
    assert alike(*tiles, np.zeros((28, 28))) == [False] * 7
    # It is not for want of a good fit.
    assert min(fit_gabor(tile).explained for tile in tiles[:3]) > 0.9


def test_scrambled_atoms_keep_their_spectrum_and_are_the_null():
    generator = np.random.default_rng(0)
    atom = gabor(1.2, 0.2, 2.0, 2.5, 10, 18, 1.4)
    scrambled = [phase_scrambled(atom, generator) for _ in range(4)]
    for tile in scrambled:
        np.testing.assert_allclose(np.abs(np.fft.fft2(tile)), np.abs(np.fft.fft2(atom)), atol=1e-9)
    assert not any(alike(*scrambled))


def test_a_wave_has_no_more_cycles_than_fit_into_the_tile():
    fit = {"explained": 1.0, "row": 14.0, "column": 14.0, "size_across": 2.0}
    waves = pd.DataFrame({"size_along": [20.0, 20.0, 3.0], "frequency": [0.02, 0.04, 0.04]})
    # By the envelope alone the first has 4 · 20 · 0.02 = 1.6 cycles, in 28 pixels 0.56.
    found = are_gabor_like(waves.assign(**fit), (28, 28), 0.5, 4.0, 1.0)
    assert found.to_list() == [False, True, False]


def test_the_study_of_features_flags_gabor_functions_and_not_gratings(monkeypatch):
    waves = [(1.2, 0.25), (0.3, 0.3)]
    place = {"row": 3.5, "column": 3.5, "phase": math.pi / 2, "size": SIZE}
    tiles = [gabor(*wave, 1.2, 1.8, **place) for wave in waves]
    tiles += [gabor(*wave, 1e6, 1e6, **place) for wave in waves]
    trained, fitted = TinyModel(), []
    with torch.no_grad():
        weight = trained.model.decoder.weight.zero_()
        weight[:, :4] = torch.from_numpy(np.reshape(tiles, (4, -1)).T)

    def fit(tile: np.ndarray):
        fitted.append(tile)
        return fit_gabor(tile)

    monkeypatch.setattr("sparse_lightning.studies.features.fit_gabor", fit)
    table = features([trained], TinyData(), ResultCache(), gabor_threshold=0.9).table
    assert table["gabor_like"].to_list() == [True] * 2 + [False] * 10
    assert not table["gabor_like_scrambled"].any()
    assert table["explained"][:4].min() > 0.99
    atoms, scrambled = np.array(fitted[:8:2]), np.array(fitted[1:8:2])
    spectra = (np.abs(np.fft.fft2(found)) for found in (atoms, scrambled))
    np.testing.assert_allclose(*spectra, atol=1e-5 * np.abs(atoms).max())
    assert (np.abs(scrambled - atoms).max((1, 2)) > 0.1 * np.abs(atoms).max((1, 2))).all()


def test_a_gabor_function_counts_wherever_it_is_in_a_wide_tile():
    rows, columns = np.mgrid[:20, :60]
    fits = []
    for centre in (10, 45):
        envelope = np.exp(-((rows - 10) ** 2 + (columns - centre) ** 2) / 18)
        fits.append(asdict(fit_gabor(envelope * np.cos(2 * np.pi * 0.15 * (columns - centre)))))
    found = pd.DataFrame(fits)
    assert (found["explained"] > 0.99).all()
    assert are_gabor_like(found, (20, 60), 0.5, 4.0, 1.0).all()
    assert are_gabor_like(found, (20, 40), 0.5, 4.0, 1.0).tolist() == [True, False]
