"""Noise of filters, calibrated on digits, strokes and waves with noise of a known share."""

from __future__ import annotations

import gzip
import math
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from tiny_study import FlatValidation, TinyData, TinyModel

from sparse_lightning.errors import NoModelsError
from sparse_lightning.figures.filters import draw
from sparse_lightning.studies.coding import all_codes
from sparse_lightning.studies.filters import filters, summary
from sparse_lightning.studies.noise import noise_share
from sparse_lightning.studies.result_cache import ResultCache

ROWS, COLUMNS = np.mgrid[:28, :28]


def digits() -> np.ndarray:
    file = files("sparse_lightning.data") / "idx" / "t10k-images-idx3-ubyte.gz"
    raw = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)
    return raw[: 100 * 784].reshape(-1, 28, 28) / 255


def strokes() -> np.ndarray:
    """What of each digit is within 5 pixels of one of its pixels."""
    generator = np.random.default_rng(0)

    def cut(digit: np.ndarray) -> np.ndarray:
        row, column = generator.choice(np.argwhere(digit > 0.5))
        return digit * ((ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= 25)

    return np.stack([cut(digit) for digit in digits()])


def waves() -> np.ndarray:
    angles = np.linspace(0, math.pi, 30)[:, None, None]
    return np.sin(0.3 * math.pi * (np.cos(angles) * COLUMNS + np.sin(angles) * ROWS))


def standardised(tiles: np.ndarray) -> np.ndarray:
    tiles = tiles - tiles.mean((1, 2), keepdims=True)
    return tiles / tiles.std((1, 2), keepdims=True)


@pytest.mark.parametrize("shapes", [digits, strokes, waves])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.25, 0.5, 0.75])
def test_the_share_of_noise_is_found_whatever_is_under_it(shapes, share):
    tiles = standardised(shapes())
    noise = standardised(np.random.default_rng(1).standard_normal(tiles.shape))
    found = noise_share(math.sqrt(1 - share) * tiles + math.sqrt(share) * noise)
    assert np.median(found) == pytest.approx(share, rel=0.15, abs=0.025)


def test_white_noise_is_all_noise_and_constants_have_none():
    noise = np.random.default_rng(2).standard_normal((200, 28, 28))
    assert np.median(noise_share(noise)) > 0.9
    tiles = digits()[:3] + 0.1 * noise[:3]
    np.testing.assert_allclose(noise_share(-7 * tiles + 5), noise_share(tiles))
    assert noise_share(np.full((1, 28, 28), 0.3)) == 0


def test_units_that_are_hardly_active_count_among_all_and_not_among_those_in_use():
    model = {"data": "d", "family": "wdl", "solver": "FISTA", "sparsity_weight": 0.1, "seed": 0}
    table = pd.DataFrame(
        {"noise": [0.1, 0.3, 0.8], "active": [0.5, 0.2, 0.001], "used": [True, True, False]}
    ).assign(**model, max_epochs=5, epochs=4, run="a")
    (row,) = summary(table).to_dict("records")
    assert (row["noise"], row["noise_in_use"]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert (row["used"], row["epochs"]) == (pytest.approx(2 / 3), 4)
    (row,) = summary(table.assign(used=False)).to_dict("records")
    assert math.isnan(row["noise_in_use"])


def test_filters_of_models_with_an_encoder_and_what_the_last_half_changed(monkeypatch, tmp_path):
    data, trained, before = TinyData(), TinyModel(seed=0), TinyModel(seed=1)
    decoder_only = TinyModel("do", encoder=False)
    monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _: before)
    result = filters([trained, decoder_only], data, ResultCache())
    assert set(result.table["family"]) == {"sdl"}
    weights = trained.model.encoder.filters().numpy().reshape(-1, 8, 8)
    np.testing.assert_allclose(result.table["noise"], noise_share(weights))
    (row,) = result.more["summary"].to_dict("records")
    earlier = noise_share(before.model.encoder.filters().numpy().reshape(-1, 8, 8)).mean()
    assert row["change_noise"] == pytest.approx(row["noise"] - earlier)
    ((name, figure),) = draw(result)
    assert name == "filter_noise"
    assert "tiny" in figure.get_suptitle()
    cache = ResultCache(tmp_path)
    for half in (None, before):  # The model after half of the epochs may come later.
        monkeypatch.setattr("sparse_lightning.studies.epochs.halfway", lambda _, own=half: own)
        (row,) = filters([trained], data, cache).more["summary"].to_dict("records")
        assert math.isnan(row["change_noise"]) == (half is None)
    with pytest.raises(NoModelsError, match="encoder filters"):
        filters([decoder_only], data, ResultCache())


def test_units_in_use_are_those_of_validation_samples():
    data, trained = FlatValidation(), TinyModel()
    found = filters([trained], data, ResultCache()).table["active"].to_numpy()
    val, test = ((all_codes(trained.model, data, split) != 0).mean(0) for split in ("val", "test"))
    np.testing.assert_allclose(found, val)
    assert np.abs(val - test).max() > 0.1
