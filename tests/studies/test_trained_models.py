"""The data that trained models share: of the contents and the units that training saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.own import data_of
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.trained_models import find_trained_models

DIM = 4


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(seed, 1 + seed, (60, DIM)).astype(np.float32)


def settings_of(path: Path) -> dict:
    return {
        "_target_": "sparse_lightning.data.arrays.Arrays", "path": str(path),
        "cache_dir": str(path.parent / "cache"), "batch_size": 10,
    }  # fmt: skip


def record_run(folder: Path, path: Path) -> None:
    """A finished run on rows of a file; the weights are as drawn."""
    settings = settings_of(path)
    data = data_of(OmegaConf.create(settings))
    data.setup()
    model = SparseAutoencoder(
        LinearDecoder(6, DIM),
        LISTA(DIM, 6),
        Energy(0.01, encoder_weight=1.0),
        FISTA(0.5, max_iterations=20),
        AdamSettings(1e-3, 1e-3),
    )
    (folder / "checkpoints").mkdir(parents=True)
    config = {
        "seed": 0, "data_name": "arrays", "model": {"family": "sdl"}, "trainer": {"max_epochs": 1},
        "data": settings,
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    results = {"epochs": 1, "max_epochs": 1, "data_fingerprint": data.fingerprint()}
    (folder / "metrics.json").write_text(json.dumps(results))
    contents = {
        "hyper_parameters": dict(model.hparams), "state_dict": model.state_dict(), "epoch": 0,
        "pytorch-lightning_version": "2.6.6", "Arrays": data.state_dict(),
    }  # fmt: skip
    torch.save(contents, folder / "checkpoints" / "best.ckpt")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", rows(0))
    record_run(tmp_path / "run", tmp_path / "x.npy")
    return tmp_path / "run"


@pytest.mark.parametrize("known_by", ["results", "checkpoint", "note", "nothing"])
def test_a_study_refuses_contents_that_training_did_not_see(known_by, run: Path, tmp_path: Path):
    (trained,) = find_trained_models(runs=str(run))
    assert trained.note["family"] is not None
    checkpoint = run / "checkpoints" / "best.ckpt"
    if known_by in ("checkpoint", "nothing"):
        (run / "metrics.json").write_text(json.dumps({"epochs": 1}))
    if known_by == "nothing":
        contents = torch.load(checkpoint, weights_only=True)
        del contents["Arrays"]
        torch.save(contents, checkpoint)
    if known_by == "note":
        checkpoint.unlink()
    shared_data(find_trained_models(runs=str(run)))
    np.save(tmp_path / "x.npy", rows(1))
    if known_by == "nothing":
        shared_data(find_trained_models(runs=str(run)))
        return
    with pytest.raises(SettingError, match=r"other contents of data\.path"):
        shared_data(find_trained_models(runs=str(run)))


@pytest.mark.parametrize("place", ["same", "copy", "link"])
def test_a_runs_own_rows_are_not_split_otherwise(place, run: Path, tmp_path: Path):
    path = tmp_path / ("x.npy" if place == "same" else "other.npy")
    if place == "copy":
        shutil.copy(tmp_path / "x.npy", path)
    if place == "link":
        path.symlink_to(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.arange(60) % 2)

    def shared(whole: bool = False, **settings) -> SplitDataModule:
        config = OmegaConf.create(settings_of(path) | settings)
        return shared_data(find_trained_models(runs=str(run)), config, whole)

    shared(labels=str(tmp_path / "y.npy"), val_share=0.1, num_train=None)
    shared(whole=True, split_seed=1)
    for other, told in (
        ({"split_seed": 1}, r"data\.split_seed=1 would split data\.path=\S+ otherwise .* set "
         r"data\.split_seed=0 as in training"),
        ({"val_share": 0.2, "num_train": 20}, r"data\.val_share=0\.2, data\.num_train=20 would .* "
         r"set data\.val_share=0\.1, data\.num_train=null as"),
        ({"groups": str(tmp_path / "y.npy")}, r"data\.groups=\S+ would split"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=told):
            shared(**other)
    np.save(tmp_path / "new.npy", rows(3))
    path = tmp_path / "new.npy"
    shared(split_seed=1)


def test_columns_of_another_table_are_taken_by_the_names_of_training(tmp_path: Path):
    names = ["a", "b", "c", "d"]
    table = pyarrow.table(dict(zip(names, rows(0).T)))
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    record_run(tmp_path / "run", tmp_path / "x.parquet")
    trained = find_trained_models(runs=f"{tmp_path}/run")

    def inputs_of(held: list[str], **settings) -> np.ndarray:
        extra = table.append_column("label", [np.arange(60)])
        pyarrow.parquet.write_table(extra.select(held), tmp_path / "new.parquet")
        own = settings_of(tmp_path / "new.parquet") | settings
        data = shared_data(trained, OmegaConf.create(own))
        order = np.argsort(data.positions["train"])
        return data.splits["train"].__getitems__(order.tolist()).inputs.numpy()

    expected = inputs_of(names)
    for held in (names[::-1], ["label", *names[::-1]]):
        np.testing.assert_array_equal(inputs_of(held), expected)
    np.testing.assert_array_equal(inputs_of(names, columns=names[::-1]), expected)
    with pytest.raises(SettingError, match=r"new\.parquet lacks the column d that the model was"):
        inputs_of(["a", "b", "c", "label"])
    # Columns that are named stand for those of training, one by one.
    renamed = inputs_of(["a", "b", "c", "label"], columns=["a", "b", "c", "label"])
    np.testing.assert_allclose(renamed[:, :3], expected[:, :3], rtol=1e-5)


def test_rows_of_other_files_are_standardised_as_those_of_training(run: Path, tmp_path: Path):
    np.save(tmp_path / "new.npy", rows(3))
    new = OmegaConf.create(settings_of(tmp_path / "new.npy"))
    data = shared_data(find_trained_models(runs=str(run)), new)
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["Arrays"]
    np.testing.assert_array_equal(data.mean, state["mean"].numpy())
    # Of models that were trained on different rows neither is taken.
    np.save(tmp_path / "y.npy", rows(2))
    record_run(tmp_path / "other", tmp_path / "y.npy")
    trained = [*find_trained_models(runs=str(run)), *find_trained_models(runs=f"{tmp_path}/other")]
    with pytest.warns(UserWarning, match="standardised by their own"):
        data = shared_data(trained, new)
    train = rows(3)[data.splits["train"].order]
    np.testing.assert_allclose(data.mean, train.mean(0), rtol=1e-4)
