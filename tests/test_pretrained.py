"""The models that travel with the package."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny_study import TinyData, TinyModel

from sparse_lightning import SparseAutoencoder, pretrained
from sparse_lightning.data.mnist import MNIST
from sparse_lightning.errors import CheckpointError, DataError
from sparse_lightning.hub import PAGE_FILE
from sparse_lightning.metrics import psnr_of
from sparse_lightning.pretrained import make
from sparse_lightning.shared_model import WEIGHTS_FILE


@pytest.mark.parametrize("name", pretrained.names())
def test_a_shipped_model_codes_and_rebuilds_in_single_precision(name: str):
    model = SparseAutoencoder.from_pretrained(name)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    codes = model.encode(torch.randn(20, 784))
    assert codes.shape == (20, model.decoder.code_dim)
    assert model.decode(codes).shape == (20, 784)


@pytest.mark.parametrize("name", pretrained.names())
def test_a_card_names_its_model_and_its_weight_of_sparsity(name: str):
    card = (pretrained.FOLDER / name / PAGE_FILE).read_text(encoding="utf-8")
    weight = SparseAutoencoder.from_pretrained(name).energy.sparsity_weight
    assert card.startswith(f"# {name}\n")
    assert f"with λ = {weight:g}, trained on" in card
    assert re.search(r"\| PSNR \| \d+\.\d\d dB \|", card)


def test_four_models_take_less_than_six_megabytes():
    names = pretrained.names()
    assert names == ["mnist-sdl", "mnist-vdl", "mnist-vdl-nl", "patches-sdl"]
    assert sum((pretrained.FOLDER / name / WEIGHTS_FILE).stat().st_size for name in names) < 6e6


def test_a_misspelt_name_is_told_the_names():
    with pytest.raises(CheckpointError, match="mnist-vdl-nl, patches-sdl"):
        SparseAutoencoder.from_pretrained("mnist-vdlnl")


@pytest.mark.parametrize("name", [name for name in pretrained.names() if "mnist" in name])
def test_a_shipped_model_has_the_numbers_of_its_card(name: str, mnist_root):
    data = MNIST(mnist_root)
    data.prepare_data()
    data.setup("test")
    test, model = data.splits["test"].tensors, SparseAutoencoder.from_pretrained(name)
    card = (pretrained.FOLDER / name / PAGE_FILE).read_text(encoding="utf-8")
    with torch.no_grad():
        codes = model.encode(test.inputs)
        errors = test.squared_errors(model.decode(codes) - test.inputs)
    told = float(re.search(r"\| PSNR \| ([\d.]+) dB", card)[1])
    assert float(psnr_of(errors).mean()) == pytest.approx(told, abs=0.02)
    told = float(re.search(r"\| zeros \| ([\d.]+)%", card)[1])
    assert 100 * float((codes == 0).double().mean()) == pytest.approx(told, abs=0.1)


def run_on(data_name: str, root: str | None, folder: Path) -> SimpleNamespace:
    """What `make` asks of a finished run, of an untrained model."""
    model = TinyModel().model
    contents = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    torch.save(contents | {"epoch": 3}, folder / "best.ckpt")
    (folder / ".hydra").mkdir()
    OmegaConf.save(["model=sdl", "seed=3"], folder / ".hydra" / "overrides.yaml")
    return SimpleNamespace(
        folder=folder, model=lambda: model, data=TinyData, best_checkpoint=folder / "best.ckpt",
        config=OmegaConf.create(
            {"data_name": data_name, "data": {"root": root}, "model": {"family": "sdl"}}
        ),
        results={"commit": "0123456789-dirty", "epochs": 5, "version": "0.1.0"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data_name", "root", "told"),
    [
        ("synthetic", None, r"data=synthetic, whose licence is not known: take a run on mnist"),
        ("imagenet_patches", "/photos", r"photographs in data\.root=/photos, whose licence"),
    ],
)
def test_of_data_without_a_known_licence_nothing_is_written(
    data_name, root, told, tmp_path: Path, monkeypatch
):
    (folder := tmp_path / "run").mkdir()
    monkeypatch.setattr(make, "FOLDER", tmp_path / "models")
    with pytest.raises(DataError, match=told):
        make.make(run_on(data_name, root, folder), "new")
    assert not (tmp_path / "models").exists()


def test_a_model_is_written_with_its_card(tmp_path: Path, monkeypatch):
    (folder := tmp_path / "run").mkdir()
    monkeypatch.setattr(make, "FOLDER", tmp_path / "models")
    run = run_on("mnist", None, folder)
    made = make.make(run, "new")
    assert made == tmp_path / "models" / "new"
    assert torch.equal(
        SparseAutoencoder.from_pretrained(made).decoder.weight,
        run.model().decoder.weight.half().float(),
    )
    card = (made / PAGE_FILE).read_text(encoding="utf-8")
    for told in ("# new\n", "train model=sdl seed=3\n", "epoch 4 of 5", "commit 0123456-dirty"):
        assert told in card


def test_the_command_of_a_card_keeps_what_changes_numbers(tmp_path: Path):
    shown = [
        *("hydra.run.dir=runs/a", "data.root=/data", "logger=none", "~callbacks.figures"),
        *("callbacks.last.every_minutes=10", "callbacks=milestones", "trainer=cpu", "resume=true"),
        *("trainer.enable_progress_bar=false", "sweep.name=a", "+callbacks.figures.num_images=3"),
    ]
    kept = [
        *("model=sdl", "callbacks=revive", "callbacks.sparsity_target.gain=0.3", "trainer=debug"),
        *("callbacks.checkpoint.monitor=val/psnr", "trainer.max_epochs=3", "imports=[own]"),
    ]
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save([*shown, *kept], tmp_path / ".hydra" / "overrides.yaml")
    found = shlex.split(make.command(SimpleNamespace(folder=tmp_path)))
    assert found == ["python", "-m", "sparse_lightning.train", *kept]
