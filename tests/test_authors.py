"""Against numbers from the program that the authors of the paper published.

The folder that the environment variable AUTHORS_DATA names, or ``tests/data/authors``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_lightning.data.batch import Batch
from sparse_lightning.data.patch_pipeline.contrast import local_contrast_normalize
from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.metrics import image_psnr
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA, ISTA

FOLDER = Path(os.environ.get("AUTHORS_DATA", Path(__file__).parent / "data" / "authors"))
INFERENCE = sorted(FOLDER.glob("*ista_*.npz"))
TRAINING = sorted(FOLDER.glob("train_*.npz"))

WEIGHT_NAMES = {
    "decoder_weight": "decoder.weight",
    "decoder_bottom_weight": "decoder.hidden.0.weight",
    "decoder_bottom_bias": "decoder.hidden.0.bias",
    "decoder_top_weight": "decoder.output.weight",
    "encoder_input_weight": "encoder.input.weight",
    "encoder_bias": "encoder.input.bias",
    "encoder_lateral_weight": "encoder.lateral.weight",
}


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    with np.load(path, allow_pickle=False) as file:
        config = json.loads(str(file["config"]))
        arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config"}
    return arrays, config


def build_decoder(config: dict) -> Decoder:
    input_dim = config["image_size"] ** 2
    if config["decoder"] == "linear":
        return LinearDecoder(config["code_dim"], input_dim)
    return MultiLayerDecoder(config["code_dim"], [config["hidden_dim"]], input_dim)


def build_model(config: dict) -> SparseAutoencoder:
    solver = FISTA if config.get("accelerated", True) else ISTA
    return SparseAutoencoder(
        decoder=build_decoder(config),
        encoder=LISTA(config["image_size"] ** 2, config["code_dim"], config["lista_iterations"]),
        energy=Energy(
            config["sparsity_weight"],
            config["variance_weight"],
            config["variance_threshold"],
            config["encoder_weight"],
        ),
        # Some of the problems are where a constant step is not stable, and the authors' codes too.
        solver=solver(
            config["step_size"], config["num_iterations"], config["tolerance"], safeguard=False
        ),
        optimizer=AdamSettings(
            config.get("decoder_lr", 1e-3),
            config.get("encoder_lr", 1e-4),
            decoder_bias_weight_decay=config.get("decoder_bias_weight_decay", 0.0),
            encoder_bias_weight_decay=config.get("encoder_bias_weight_decay", 0.0),
        ),
        constraint=UnitColumns(config["column_norm"]) if config["column_norm"] else None,
    ).double()


def set_weights(model: SparseAutoencoder, arrays: dict[str, Tensor], prefix: str = "") -> None:
    weights = {
        ours: arrays[prefix + theirs]
        for theirs, ours in WEIGHT_NAMES.items()
        if prefix + theirs in arrays
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing
    assert not unexpected


def relative_error(found: Tensor, expected: Tensor) -> float:
    found = found.detach()
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def test_folder_holds_every_kind_of_file():
    assert INFERENCE
    assert TRAINING
    assert (FOLDER / "psnr.npz").exists()


@pytest.mark.parametrize("path", INFERENCE, ids=lambda path: path.stem)
def test_inference(path: Path):
    arrays, config = load(path)
    model = build_model(config)
    set_weights(model, arrays)
    inputs = arrays["y"]
    prediction = model.encoder(inputs)
    assert relative_error(prediction, arrays["encoder_codes"]) < 1e-6
    objective = model.energy.bind(model.decoder, inputs, prediction)
    initial = prediction if config["warm_start"] else torch.zeros_like(prediction)
    codes = model.solver(objective, initial).codes
    assert relative_error(codes, arrays["codes"]) < 1e-6
    assert relative_error(model.decoder(codes), arrays["reconstruction"]) < 1e-6
    assert relative_error(objective.value(codes), arrays["energy"]) < 1e-6


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_training_steps(path: Path):
    arrays, config = load(path)
    model = build_model(config)
    set_weights(model, arrays, "initial_")
    optimizer = model.configure_optimizers()["optimizer"]
    for batch, reconstruction_loss, code_loss in zip(
        arrays["batches"], arrays["reconstruction_loss"], arrays["code_loss"]
    ):
        optimizer.zero_grad()
        loss = model.training_step(Batch(batch, torch.tensor(1.0), torch.tensor(0.0)), 0)
        assert relative_error(loss, reconstruction_loss + code_loss) < 1e-6
        loss.backward()
        optimizer.step()
        if model.constraint is not None:
            model.constraint(model.decoder)
    state = model.state_dict()
    for theirs, ours in WEIGHT_NAMES.items():
        if f"final_{theirs}" in arrays:
            assert relative_error(state[ours], arrays[f"final_{theirs}"]) < 1e-6, ours


def test_local_contrast_normalization():
    arrays, config = load(FOLDER / "lcn.npz")
    found = local_contrast_normalize(arrays["images"], config["kernel_size"], config["sigma"])
    for result, name in zip(found, ("normalized", "local_mean", "local_std")):
        torch.testing.assert_close(result, arrays[name], rtol=0, atol=1e-10)


def test_psnr_of_patches():
    """Pixels are (x · local_std + local_mean) · grey_std + grey_mean."""
    arrays, config = load(FOLDER / "psnr.npz")
    mean, std = config["imagenet_gray_mean"], config["imagenet_gray_std"]
    scale, shift = arrays["local_std"] * std, arrays["local_mean"] * std + mean
    batch = Batch(arrays["target"], scale, shift)
    psnr = image_psnr(batch.to_pixels(arrays["prediction"]), batch.to_pixels(arrays["target"]))
    torch.testing.assert_close(psnr, arrays["psnr_patches"], rtol=1e-7, atol=0)


def test_psnr_of_mnist():
    arrays, config = load(FOLDER / "psnr.npz")
    scale, shift = torch.tensor(config["mnist_std"]), torch.tensor(config["mnist_mean"])
    batch = Batch(arrays["target"], scale.double(), shift.double())
    psnr = image_psnr(batch.to_pixels(arrays["prediction"]), batch.to_pixels(arrays["target"]))
    torch.testing.assert_close(psnr, arrays["psnr_mnist"], rtol=1e-7, atol=0)
