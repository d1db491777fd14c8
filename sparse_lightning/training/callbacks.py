"""Callbacks of training.

`Figures` shows what the model has learned, on disk and in the loggers; `EarlyStopping` ends a run
that no longer improves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor

from sparse_lightning.data.batch import Batch
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import as_pictures
from sparse_lightning.errors import SettingError
from sparse_lightning.figures.heat_map import atom_heat_map
from sparse_lightning.figures.histograms import unit_histograms
from sparse_lightning.figures.tiles import feature_tiles, image_rows
from sparse_lightning.files import replaced_whole, write_figure
from sparse_lightning.inputs import as_batch, at_least_float32
from sparse_lightning.metrics import CodeStatistics
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.evaluation_mode import evaluation_mode
from sparse_lightning.training.sparsity_target import AfterSearch
from sparse_lightning.training.trackio_logger import TrackioLogger


class EarlyStopping(AfterSearch, lightning.pytorch.callbacks.EarlyStopping):
    """Lightning's, with the patience of the settings also where a run goes on.

    A run that had stopped stays stopped. None stops while λ is sought for a target.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if self.wait_count >= max(self.patience, 1):
            trainer.should_stop = True


class Figures(lightning.Callback):
    """Draw the features, reconstructions and code histograms of a model.

    Of data that are no images the features are a heat map, and there are no reconstructions.

    Drawn before the first epoch, every ``every_epochs`` epochs and at the end, from the first
    batches of the validation set, as ``figures/NAME_epoch_0010.png``; the latest of each also as
    ``figures/NAME.png``.

    Args:
        folder: where the pictures go.
        every_epochs: how often.
        num_images: inputs shown beside their reconstructions.
        num_batches: validation batches that the histograms are made from.
    """

    def __init__(
        self, folder: str | Path, every_epochs: int = 10, num_images: int = 12, num_batches: int = 8
    ) -> None:
        if every_epochs < 1:
            raise SettingError(
                f"callbacks.figures.every_epochs={every_epochs} must be at least 1; to draw none, "
                "use '~callbacks.figures'."
            )
        self.folder, self.every_epochs = Path(folder), every_epochs
        self.num_images, self.num_batches = num_images, num_batches
        self._drawn_after: int | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if not isinstance(trainer.datamodule, SplitDataModule):
            raise SettingError(
                "callbacks.figures needs a data module that inherits from "
                "sparse_lightning.data.module.SplitDataModule: give trainer.fit(model, "
                "datamodule=...) one, or leave the callback out."
            )

    @rank_zero_only
    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module, 0)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        epochs = trainer.current_epoch + 1
        if epochs % self.every_epochs == 0:
            self._draw(trainer, pl_module, epochs)

    @rank_zero_only
    def on_train_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if trainer.current_epoch != self._drawn_after:
            self._draw(trainer, pl_module, trainer.current_epoch)

    def _draw(self, trainer: lightning.Trainer, model: SparseAutoencoder, epochs: int) -> None:
        self._drawn_after = epochs
        heading = f"{model.family} on {trainer.datamodule.title}, epoch {epochs}"
        batches = [as_batch(batch, model.decoder) for batch in self._batches(trainer)]
        for name, figure in model_figures(
            model, batches, trainer.datamodule, self.num_images, heading
        ):
            path = write_figure(figure, self.folder / f"{name}_epoch_{epochs:04d}.png")
            with replaced_whole(self.folder / f"{name}.png") as latest:
                shutil.copyfile(path, latest)
            log_figure(trainer, name, path, figure)

    def _batches(self, trainer: lightning.Trainer) -> list[Batch]:
        loader = trainer.datamodule.val_dataloader()
        return [
            trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
            for _, batch in zip(range(self.num_batches), loader)
        ]


def model_figures(
    model: SparseAutoencoder,
    batches: list[Batch],
    data: SplitDataModule,
    num_images: int,
    heading: str,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that is shown of a model, from a few batches of data."""
    statistics = CodeStatistics(model.decoder.code_dim, model.energy.variance_threshold)
    statistics.to(model.device)
    with torch.no_grad(), evaluation_mode(model):
        codes = [at_least_float32(model.encode(batch.inputs)) for batch in batches]
        for batch_codes in codes:
            statistics.update(batch_codes)
        largest = statistics.largest.to(torch.float32)
        # A component that is never active is shown at a scale of 1, to see what it would draw.
        atoms = model.decoder.atoms(torch.where(largest > 0, largest, 1.0))
        rebuilt = model.decode(codes[0])
    activity = statistics.activity().cpu().numpy()
    if data.image_shape is not None:
        shape = data.image_shape
        yield from _pictures(model, atoms, batches[0], rebuilt, shape, num_images, heading)
    else:
        rows = at_least_float32(atoms).cpu().numpy()
        yield "atoms", atom_heat_map(rows, activity, f"Atoms: {heading}", data.column_names)
    yield (
        "codes",
        unit_histograms(
            statistics.standard_deviation().cpu().numpy(),
            activity,
            model.energy.variance_threshold,
            f"Validation codes: {heading}",
        ),
    )


def _pictures(
    model: SparseAutoencoder,
    atoms: Tensor,
    batch: Batch,
    rebuilt: Tensor,
    image_shape: tuple[int, ...],
    num_images: int,
    heading: str,
) -> Iterator[tuple[str, Figure]]:
    """Atoms, filters and reconstructions of data that are images."""
    yield "atoms", feature_tiles(_tiles(atoms, image_shape), f"Atoms: {heading}")
    common = f"Atoms on one scale: {heading}"
    yield "atoms_one_scale", feature_tiles(_tiles(atoms, image_shape), common, own_scale=False)
    filters = None if model.encoder is None else model.encoder.filters()
    if filters is not None:
        tiles = _tiles(filters, image_shape)
        yield "encoder_filters", feature_tiles(tiles, f"Encoder filters U: {heading}")
    rows = {
        "input": _tiles(batch.to_pixels(batch.inputs), image_shape)[:num_images],
        "reconstruction": _tiles(batch.to_pixels(rebuilt), image_shape)[:num_images],
    }
    yield "reconstructions", image_rows(rows, f"Validation images: {heading}")


def _tiles(vectors: Tensor, image_shape: tuple[int, ...]) -> np.ndarray:
    return as_pictures(at_least_float32(vectors).cpu().numpy(), image_shape)


def log_figure(trainer: lightning.Trainer, name: str, path: Path, figure: Figure) -> None:
    """Hand a figure to the loggers that can show it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"figures/{name}", [str(path)])
        elif isinstance(logger, TrackioLogger):
            logger.log_image(f"figures/{name}", path)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"figures/{name}", figure, trainer.global_step)
