"""What an earlier version of the package wrote is found, read and used by this one.

``data/old_sweep`` has the small files of a sweep's folders, ``data/old_settings`` records of other
settings, and ``data/old_sdl_nl.ckpt`` is a checkpoint, all as commit 56fcf4b wrote them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import Compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sparse_lightning.experiments.fingerprint import (
    changed_settings,
    digest,
    effective_settings,
)
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.train import main

DATA = Path(__file__).parent.parent / "data"
SWEEP = (
    "model=sdl,vdl,vdl_nl sparsity_level=1,3 seed=0 data.num_train=500 data.num_val=250 "
    "data.num_test=250 trainer=cpu trainer.max_epochs=1 logger=none ~callbacks.figures"
)
SETTINGS = {
    "patches_do": (
        "data=imagenet_patches model=do solver=ista callbacks=early_stopping sparsity_level=2 "
        "seed=3"
    ),
    "kmnist_wdl_nl": "data=kmnist model=wdl_nl solver=adaptive trainer=cpu sparsity_level=4 seed=0",
    "fashion_none": "data=fashion_mnist model=none experiment=quick",
    "mnist_sdl_nl": "data=mnist model=sdl_nl trainer=ddp model.energy.sparsity_weight=0.1",
}


@pytest.fixture
def old_sweep(monkeypatch, tmp_path: Path):
    """A copy of the sweep's folder, and its command, which ends in a process without data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "old_sweep", tmp_path / "sweep")
    command = ["train", "-m", *SWEEP.split(), f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    monkeypatch.setattr(sys, "argv", command)
    GlobalHydra.instance().clear()
    yield tmp_path / "sweep"
    GlobalHydra.instance().clear()


def test_the_command_of_an_old_sweep_starts_nothing(old_sweep: Path, capsys):
    before = {path.relative_to(old_sweep) for path in old_sweep.rglob("*/*")}
    assert len(before) == 6 * 3
    main()
    assert f"Sweep of 6 jobs in {old_sweep}: 6 finished\n" in capsys.readouterr().err
    assert {path.relative_to(old_sweep) for path in old_sweep.rglob("*/*")} == before
    assert {path.name for path in old_sweep.iterdir() if path.is_dir()} == {
        path.name for path in (DATA / "old_sweep").iterdir()
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_old_settings_are_those_of_the_same_command_today(name, compose: Compose):
    old = effective_settings(OmegaConf.load(DATA / "old_settings" / f"{name}.yaml"))
    today = effective_settings(compose(*SETTINGS[name].split()))
    differing = {key for key in old.keys() | today if old.get(key) != today.get(key)}
    assert differing == set()
    assert digest(old) == digest(today)
    record = OmegaConf.load(DATA / "old_settings" / f"{name}.yaml")
    assert changed_settings(record, compose(*SETTINGS[name].split()), False) == {}


def test_an_old_checkpoint_gives_its_codes():
    model = SparseAutoencoder.load_from_checkpoint(DATA / "old_sdl_nl.ckpt").eval()
    assert model.family == "sdl_nl"
    line = torch.linspace(-1, 1, 784)
    inputs = torch.stack([line, (8 * line).sin()])
    with torch.no_grad():
        codes = model.encode(inputs)
        pixels = model.decode(codes)[:, 5::196]
    expected_codes = [
        [0.0407248884, 0.4382001162, 0.0, 0.0571634471],
        [0.2981745899, 0.3621807694, 0.0, 0.0],
    ]
    expected_pixels = [
        [-0.0134554496, 0.0018967540, -0.0056171543, -0.0002332971],
        [-0.0058459402, 0.0022740446, -0.0039813803, -0.0043479935],
    ]
    torch.testing.assert_close(codes, torch.tensor(expected_codes), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pixels, torch.tensor(expected_pixels), rtol=1e-4, atol=1e-6)
    # The minimum, of which inference stops a little short.
    minimum = [[0.0191960819, 0.4110274911, 0.0, 0.0311116166], [0.2798610330, 0.3411334157, 0, 0]]
    found = model.infer(inputs).codes
    torch.testing.assert_close(found, torch.tensor(minimum), rtol=0, atol=2e-3)
