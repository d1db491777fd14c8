"""Convolutional decoders on a folder of colour images: trained, resumed, studied, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Compose
from interruptions import weights_of
from PIL import Image

from sparse_lightning.errors import SettingError
from sparse_lightning.figures.ablation import draw as draw_ablation
from sparse_lightning.figures.activating import draw as draw_activating
from sparse_lightning.figures.activating import sheet
from sparse_lightning.figures.features import draw as draw_features
from sparse_lightning.studies.ablation import ablation
from sparse_lightning.studies.activating import activating
from sparse_lightning.studies.features import features
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.train import train

SIDE = 8


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Plain red, green and blue images, with noise."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(30):
        pixels = generator.integers(0, 60, (SIDE, SIDE + number % 3, 3), dtype=np.uint8)
        pixels[..., number % 3] += 180
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def small(compose: Compose, images: Path, tmp_path: Path) -> Compose:
    """The command of the documentation, with numbers that make it quick."""

    def composed(*overrides: str, **kwargs):
        return compose(
            "model=vdl_conv", "data=image_folder", f"data.root={images}", f"data.size={SIDE}",
            "data.channels=rgb", f"data.cache_dir={tmp_path / 'cache'}", "data.batch_size=8",
            "trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "max_epochs=2",
            "code_dim=6", "model.decoder.channels=[4,3]", "solver.max_iterations=8", *overrides,
            **kwargs,
        )  # fmt: skip

    return composed


def is_coloured(path: Path) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return bool((np.ptp(pixels, axis=-1) > 30).any())


@pytest.mark.filterwarnings("ignore:All validation codes are zero")
def test_from_a_folder_to_figures_and_studies(small: Compose, tmp_path: Path):
    config = small(run_dir=tmp_path / "runs" / "whole")
    assert list(config.model.decoder.image_shape) == [3, SIDE, SIDE]
    results = train(config)
    assert np.isfinite(results["test/psnr"])
    for name in ("atoms", "reconstructions", "encoder_filters"):
        assert is_coloured(tmp_path / "runs" / "whole" / "figures" / f"{name}.png"), name
    metrics = pd.read_csv(tmp_path / "runs" / "whole" / "metrics.csv")
    assert metrics[[f"train/column_norm_{layer}" for layer in (1, 2, 3)]].gt(0).all(axis=None)

    models = find_trained_models(runs=tmp_path / "runs")
    data, cache = shared_data(models), ResultCache(tmp_path / "memory")
    found = features(models, data, cache, gabors=False)
    scales = torch.tensor([scale or 1.0 for scale in found.table["scale"]])  # 1 for a dead unit
    atoms = models[0].model.decoder.atoms(scales)
    shown = found.pictures.where(kind="atom").pixels
    np.testing.assert_allclose(shown.transpose(0, 3, 1, 2).reshape(6, -1), atoms, atol=1e-6)
    assert len(dict(draw_features(found))) == 4
    history = ablation(models)
    assert len(history.table) == 2
    ((_, figure),) = draw_ablation(history)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert len(labels) == 6
    assert "third layer" in labels[-1]

    shown = activating(models, data, cache, num_shown=2)
    (tile, *_) = shown.pictures.where(kind="input").pixels
    assert tile.shape == (SIDE, SIDE, 3)
    unit = int(shown.pictures.index.query("kind == 'input'")["unit"].iloc[0])
    drawn = sheet(shown.pictures)[unit * (SIDE + 2) :][:SIDE, SIDE + 2 :][:, :SIDE]
    np.testing.assert_allclose(drawn, tile.clip(0, 1))
    ((_, figure),) = draw_activating(shown)
    assert "grey zero" in figure.axes[0].get_title()


@pytest.mark.slow
def test_a_run_goes_on_bit_by_bit(small: Compose, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(small("~callbacks.figures", run_dir=whole))
    train(small("~callbacks.figures", "max_epochs=1", run_dir=parts))
    train(small("~callbacks.figures", "resume=true", run_dir=parts))
    expected, found = (weights_of(run / "checkpoints" / "last.ckpt") for run in (whole, parts))
    assert expected["decoder.convolutions.1.weight"].shape == (3, 3, 4, 4)
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name


def test_shapes_and_numbers_follow_from_the_data(small: Compose):
    config = small("data.channels=grey")
    assert list(config.model.decoder.image_shape) == [SIDE, SIDE]
    for family in ("sdl_conv", "vdl_conv"):
        config = small(f"model={family}")
        assert config.model.energy.sparsity_weight == pytest.approx(1 / (3 * SIDE**2), rel=1e-2)
        assert len(config.sparsity_weights) == 6
        assert config.model.optimizer.decoder_learning_rate == 1e-3
        assert config.model.optimizer.encoder_learning_rate == 1e-3
    ablated = small("model=none", "model/decoder=convolutional")
    assert list(ablated.model.decoder.image_shape) == [3, SIDE, SIDE]


def test_sides_that_the_maps_cannot_reach_are_refused_before_training(small: Compose):
    with pytest.raises(Exception, match=r"image_shape=\[3, 6, 6\] .* multiples of 4") as caught:
        train(small("data.size=6"))
    assert isinstance(caught.value.__cause__, SettingError)
