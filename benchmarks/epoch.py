"""A training epoch of VDL through ``Trainer.fit`` against a bare Python loop.

The bare loop takes the same steps on the same batches: slice, encoder, inference, losses,
backward, Adam. It measures, logs and shows nothing. Both are timed from the start of training to
its end, when the model has been made; what a ``Trainer`` does once in a run, before and after, is
in a row of its own. They take turns, and a ratio is the median over turns of the ratio within one:
a machine that is slower for some seconds is so for both.

``python -m benchmarks.epoch`` trains on MNIST, ``python -m benchmarks.epoch imagenet_patches --root
FOLDER --count 50000`` on natural image patches (of the sample photographs where no folder is
given).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from rich.console import Console
from torch.nn.functional import mse_loss

from benchmarks.timing import empty_table, machine
from sparse_lightning import FISTA, LISTA, AdamSettings, Energy, LinearDecoder, SparseAutoencoder
from sparse_lightning.data.mnist import MNIST
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.patches import ImagePatches

SOLVER = FISTA(0.5)


@dataclass(frozen=True)
class Setting:
    """The numbers of VDL on one kind of data."""

    code_dim: int
    energy: Energy
    adam: AdamSettings
    input_dim: int = 784

    def new_model(self, kind: type[SparseAutoencoder] = SparseAutoencoder) -> SparseAutoencoder:
        """An untrained model, the same each time."""
        lightning.seed_everything(0, verbose=False)
        decoder = LinearDecoder(self.code_dim, self.input_dim)
        encoder = LISTA(self.input_dim, self.code_dim)
        return kind(decoder, encoder, self.energy, SOLVER, self.adam, family="vdl")


SETTINGS = {
    "mnist": Setting(128, Energy(0.02, 10.0, 0.5, 5.0), AdamSettings(3e-4, 1e-4)),
    "imagenet_patches": Setting(
        256,
        Energy(0.01, 10.0, 0.5, 5.0),
        AdamSettings(3e-4, 1e-4, encoder_bias_weight_decay=1e-2),
    ),
}


class Clock(lightning.Callback):
    """How long training itself takes, and all of a run, in seconds, run by run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.in_all: list[float] = []

    def on_train_start(self, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def bare_epoch(setting: Setting, data: SplitDataModule, clock: Clock) -> None:
    """One epoch in the order of ``Trainer.fit``'s first."""
    model, samples = setting.new_model(), data.splits["train"]
    order = torch.tensor(list(data.train_dataloader().sampler))
    optimizer, _ = setting.adam.build(model.decoder, model.encoder)
    clock.on_train_start()
    for rows in order.split(data.batch_size):
        inputs = samples.__getitems__(rows.numpy()).inputs
        prediction = model.encoder(inputs)
        objective = setting.energy.bind(model.decoder, inputs, prediction)
        codes = SOLVER(objective, prediction.detach()).codes
        optimizer.zero_grad()
        loss = mse_loss(model.decoder(codes), inputs) + mse_loss(prediction, codes)
        loss.backward()
        optimizer.step()
    clock.on_train_end()


class Unmeasured(SparseAutoencoder):
    """A model that measures nothing."""

    def _measure(self, *args: object) -> None:
        pass


def lightning_epoch(
    setting: Setting,
    data: SplitDataModule,
    clock: Clock,
    kind: type[SparseAutoencoder] = SparseAutoencoder,
) -> None:
    """The same epoch with metrics, if the model has any, and a progress bar."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[TQDMProgressBar(refresh_rate=10), clock],
    )
    model = setting.new_model(kind)
    start = time.perf_counter()
    trainer.fit(model, data)
    clock.in_all.append(time.perf_counter() - start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?", choices=SETTINGS, default="mnist")
    parser.add_argument("--root", type=Path, help="images of the patches; none: sample photographs")
    parser.add_argument("--count", type=int, default=200_000, help="patches in an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data == "mnist":
            data = MNIST(folder)
        else:
            data = ImagePatches(arguments.root, folder, num_train=arguments.count)
        data.prepare_data()
        data.setup()
        compare(arguments.data, data, arguments.repeats)


def compare(name: str, data: SplitDataModule, repeats: int) -> None:
    """Time both in turn and print the table of medians."""
    setting, bare, epoch, unmeasured = SETTINGS[name], Clock(), Clock(), Clock()
    # The first turn is the warm-up.
    for _ in range(repeats + 1):
        bare_epoch(setting, data, bare)
        lightning_epoch(setting, data, epoch)
        lightning_epoch(setting, data, unmeasured, Unmeasured)
    rivals = {
        "bare loop": bare.seconds,
        "an epoch of Trainer.fit": epoch.seconds,
        "the same, nothing measured": unmeasured.seconds,
        "Trainer.fit, all of it": epoch.in_all,
    }
    steps = len(data.train_dataloader())
    title = f"First epoch of VDL on {name}, {steps} steps\n{machine()}"
    table = empty_table(title, ("",), ("seconds", "ratio"))
    for rival, seconds in rivals.items():
        ratios = [one / other for one, other in zip(seconds[1:], bare.seconds[1:])]
        table.add_row(rival, f"{median(seconds[1:]):.2f}", f"{median(ratios):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
