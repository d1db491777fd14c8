"""The models that travel with the package."""

from __future__ import annotations

import re

import pytest
import torch

from sparse_lightning import SparseAutoencoder, pretrained
from sparse_lightning.data.mnist import MNIST
from sparse_lightning.errors import CheckpointError
from sparse_lightning.hub import PAGE_FILE
from sparse_lightning.metrics import psnr_of
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
