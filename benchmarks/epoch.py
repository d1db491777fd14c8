"""A training epoch of VDL on MNIST through ``Trainer.fit`` against a bare Python loop.

The bare loop takes the same steps on the same batches: slice, encoder, inference, losses,
backward, Adam. It measures, logs and shows nothing. ``python -m benchmarks.epoch``
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from rich.console import Console
from rich.table import Table
from torch.nn.functional import mse_loss

from benchmarks.timing import machine, medians
from sparse_lightning import FISTA, LISTA, AdamSettings, Energy, LinearDecoder, SparseAutoencoder
from sparse_lightning.data.mnist import MNIST

ADAM = AdamSettings(decoder_learning_rate=3e-4, encoder_learning_rate=1e-4)
ENERGY, SOLVER = Energy(0.02, 10.0, 0.5, 5.0), FISTA(0.5)


def new_model() -> SparseAutoencoder:
    lightning.seed_everything(0, verbose=False)
    return SparseAutoencoder(
        LinearDecoder(128, 784), LISTA(784, 128), ENERGY, SOLVER, ADAM, family="vdl"
    )


def bare_epoch(model: SparseAutoencoder, data: torch.Tensor, order: torch.Tensor) -> None:
    optimizer, _ = ADAM.build(model.decoder, model.encoder)
    for rows in order.split(250):
        inputs = data[rows]
        prediction = model.encoder(inputs)
        objective = ENERGY.bind(model.decoder, inputs, prediction)
        codes = SOLVER(objective, prediction.detach()).codes
        optimizer.zero_grad()
        loss = mse_loss(model.decoder(codes), inputs) + mse_loss(prediction, codes)
        loss.backward()
        optimizer.step()


def lightning_epoch(model: SparseAutoencoder, data: MNIST) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[TQDMProgressBar(refresh_rate=10)],
    )
    trainer.fit(model, data)


def main(root: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = MNIST(root)
    data.prepare_data()
    data.setup()
    # The order of Trainer.fit's first epoch.
    order = torch.tensor(list(data.train_dataloader().sampler))
    inputs = data.splits["train"].tensors.inputs
    seconds = medians(
        {
            "bare loop": lambda: bare_epoch(new_model(), inputs, order),
            "Trainer.fit": lambda: lightning_epoch(new_model(), data),
        },
        repeats=3,
    )
    table = Table(title=f"First epoch of VDL on MNIST\n{machine()}")
    for heading in ("", "seconds", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}", f"{value / seconds['bare loop']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
