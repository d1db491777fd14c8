"""Figures are drawn when they should be, and training ends early where it should."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import pandas as pd
import pytest
import torch
from conftest import Compose

from sparse_lightning.errors import SettingError
from sparse_lightning.studies.epochs import halfway
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.train import train
from sparse_lightning.training.callbacks import Figures


def test_figures_at_the_start_every_k_epochs_and_at_the_end(
    compose: Compose, mnist_root: Path, tmp_path: Path
):
    config = compose(
        "model=sdl_nl",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_epochs=3",
        "logger=none",
        "hidden_dim=48",
        "solver.max_iterations=10",
        f"data.root={mnist_root}",
        "data.num_train=100",
        "data.num_val=100",
        "data.num_test=100",
        "callbacks.figures.every_epochs=2",
    )
    train(config)
    found = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    names = ("atoms", "atoms_one_scale", "encoder_filters", "reconstructions", "codes")
    stages = ("", "_epoch_0000", "_epoch_0002", "_epoch_0003")
    assert found == {f"{name}{stage}.png" for name in names for stage in stages}
    picture = matplotlib.image.imread(tmp_path / "run" / "figures" / "atoms.png")
    assert picture.std() > 0.05


def test_early_stopping(compose_small: Compose):
    config = compose_small(
        "model=sdl",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "+callbacks.early_stopping.min_delta=100.0",
        "trainer.max_epochs=10",
    )
    assert train(config)["epochs"] == 2


def test_patience_is_that_of_the_settings(compose_small: Compose):
    settings = (
        "model=sdl", "callbacks=early_stopping", "+callbacks.early_stopping.min_delta=100.0",
        "trainer.max_epochs=10",
    )  # fmt: skip
    train(compose_small(*settings, "callbacks.early_stopping.patience=1"))
    final = train(compose_small(*settings, "callbacks.early_stopping.patience=3", "resume=true"))
    assert final["epochs"] == 4


def test_milestones_are_what_studies_look_for(compose_small: Compose, tmp_path: Path):
    config = compose_small(
        "model=sdl",
        "callbacks=milestones",
        "callbacks.milestones.every_n_epochs=1",
        "trainer.max_epochs=4",
    )
    final = train(config)
    energies = pd.read_csv(tmp_path / "run" / "metrics.csv")["val/energy"]
    assert final["val/energy"] == energies.min(), "results are of the best model, no milestone"
    assert energies.idxmin() >= 2, "the case that is meant"
    (trained,) = find_trained_models(runs=str(tmp_path / "run"))
    half = halfway(trained)
    assert half.checkpoint == tmp_path / "run" / "milestones" / "epoch=1.ckpt"
    assert torch.load(half.checkpoint, weights_only=True)["epoch"] == 1
    assert half.model.family == "sdl"


def test_figures_say_which_data_module_they_need(tmp_path: Path):
    with pytest.raises(SettingError, match=r"callbacks\.figures needs a data module"):
        Figures(tmp_path).on_fit_start(SimpleNamespace(datamodule=None), None)
