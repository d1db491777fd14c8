"""Callbacks of training.

`Figures` shows what the model has learned, on disk and in the loggers, and `InferenceWatch` warns
before inference diverges. `RunCheckpoint` keeps the best and the last model of a run's folder, and
`EarlyStopping` ends it; `FreshCallbacks` makes them forget the run that another one starts from,
and `OwnLearningRates` keeps the settings' learning rates in a run that goes on.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor

from sparse_lightning import plots
from sparse_lightning.data.batch import Batch
from sparse_lightning.energy import at_least_float32
from sparse_lightning.errors import SettingError, require_non_negative, require_positive
from sparse_lightning.files import replaced_whole, write_figure
from sparse_lightning.metrics import CodeStatistics
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.parts import describe


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, which finds its files again where the run's folder has been moved.

    Lightning forgets which model was the best when the folder's path has changed, and would replace
    it by the next one, whatever its energy.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here, scores = Path(self.dirpath), state_dict["best_k_models"]
        if Path(state_dict["dirpath"]) != here:
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                **{name: _moved(state_dict[name], here) for name in _PATHS},
                "best_k_models": {_moved(path, here): scores[path] for path in scores},
            }
        super().load_state_dict(state_dict)


_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path


class EarlyStopping(lightning.pytorch.callbacks.EarlyStopping):
    """Lightning's, with the patience of the settings also where a run goes on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})


class FreshCallbacks(lightning.Callback):
    """For a run that starts from another's checkpoint: its best model and time are its own."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: SparseAutoencoder, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["callbacks"] = {}


class OwnLearningRates(lightning.Callback):
    """For a run that goes on: learning rates and weight decays are those of its settings.

    Lightning restores the optimizer's, which differ where a run that diverged goes on with others.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        settings = pl_module.optimizer_settings
        own, own_schedule = settings.build(pl_module.decoder, pl_module.encoder)
        (restored,), (config,) = trainer.optimizers, trainer.lr_scheduler_configs
        schedule = config.scheduler
        schedule.base_lrs = own_schedule.base_lrs
        for group, new, factor in zip(
            restored.param_groups, own.param_groups, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = new["initial_lr"] * factor(schedule.last_epoch)
            group["initial_lr"], group["weight_decay"] = new["initial_lr"], new["weight_decay"]


class InferenceWatch(lightning.Callback):
    """Warn when inference strains, which a constant step does before it diverges.

    The curvature of the energy grows while the decoder learns. Long before a step that was stable
    is too large for it, samples take more iterations, and some no longer converge. After each
    training epoch one of two things is a strain:

    - the share of samples that converged (``train/converged``) is under ``least_converged``, and
      was at or above it in an earlier epoch;
    - the mean iterations per sample (``train/iterations``) are more than ``growth`` times those of
      the epoch that had the fewest, and more than ``from_iterations``.

    The first ``settling_epochs`` are not compared with: samples of a decoder that has learned
    nothing may converge at once, and those of the next epoch may not. Nothing is said of inference
    that takes all its iterations from the first epoch on: its samples never converged, and its
    iterations cannot grow. Nor is anything said of few iterations. Each strain is told once in a
    run, also where the run is resumed; a run that goes on with another solver is watched anew.

    Args:
        least_converged: in (0, 1].
        growth: above 0.
        from_iterations: above 0.
        settling_epochs: 0 or more.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    def __init__(
        self,
        least_converged: float,
        growth: float,
        from_iterations: float,
        settling_epochs: int,
    ) -> None:
        for name, value in (
            ("least_converged", least_converged),
            ("growth", growth),
            ("from_iterations", from_iterations),
        ):
            require_positive(f"callbacks.inference_watch.{name}", value)
        if least_converged > 1:
            raise SettingError(
                f"callbacks.inference_watch.least_converged={least_converged} is a share of "
                "samples: take at most 1."
            )
        require_non_negative("callbacks.inference_watch.settling_epochs", settling_epochs)
        self.least_converged, self.growth = least_converged, growth
        self.from_iterations, self.settling_epochs = from_iterations, settling_epochs
        self._begin(None)

    def _begin(self, solver: dict[str, Any] | None) -> None:
        self.solver, self.told, self.epochs = solver, [], 0
        self.most_converged, self.fewest_iterations = 0.0, math.inf

    def strains(self, iterations: float, converged: float) -> dict[str, str]:
        """Take one more epoch into account; what strains in it and was not told, by kind."""
        self.epochs += 1
        if self.epochs <= self.settling_epochs:
            return {}
        found = {}
        if converged < self.least_converged <= self.most_converged:
            found["converged"] = (
                f"train/converged fell to {converged:.3f} from {self.most_converged:.3f}"
            )
        if iterations > max(self.from_iterations, self.growth * self.fewest_iterations):
            found["iterations"] = (
                f"train/iterations rose to {iterations:.1f} from {self.fewest_iterations:.1f}"
            )
        self.most_converged = max(self.most_converged, converged)
        self.fewest_iterations = min(self.fewest_iterations, iterations)
        new = {kind: text for kind, text in found.items() if kind not in self.told}
        self.told += new
        return new

    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        solver = describe(pl_module.solver)
        if solver != self.solver:
            self._begin(solver)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        # The model logs these numbers, and forgets them, after its callbacks had their turn.
        effort = pl_module.meters["train_meters"]["effort"].compute()
        new = self.strains(float(effort["iterations"]), float(effort["converged"]))
        for text in new.values():
            rank_zero_warn(
                f"Inference strains: {text} in epoch {trainer.current_epoch}. Should it diverge, "
                f"{pl_module.solver.divergence_hint}."
            )

    def state_dict(self) -> dict[str, Any]:
        names = ("solver", "told", "epochs", "most_converged", "fewest_iterations")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


class Figures(lightning.Callback):
    """Draw the features, reconstructions and code histograms of a model.

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

    @rank_zero_only
    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if trainer.current_epoch == 0:
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
        batches = self._batches(trainer)
        for name, figure in model_figures(
            model, batches, trainer.datamodule.image_shape, self.num_images, heading
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
    image_shape: tuple[int, int],
    num_images: int,
    heading: str,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that is shown of a model, from a few batches of data."""
    statistics = CodeStatistics(model.decoder.code_dim, model.energy.variance_threshold)
    statistics.to(model.device)
    with torch.no_grad():
        codes = [at_least_float32(model.encode(batch.inputs)) for batch in batches]
        for batch_codes in codes:
            statistics.update(batch_codes)
        largest = statistics.largest.to(torch.float32)
        # A component that is never active is shown at a scale of 1, to see what it would draw.
        atoms = model.decoder.atoms(torch.where(largest > 0, largest, 1.0))
        rebuilt = model.decode(codes[0])
    yield "atoms", plots.features(_tiles(atoms, image_shape), f"Atoms: {heading}")
    common = f"Atoms on one scale: {heading}"
    yield "atoms_one_scale", plots.features(_tiles(atoms, image_shape), common, own_scale=False)
    if model.encoder is not None:
        filters = _tiles(model.encoder.filters(), image_shape)
        yield "encoder_filters", plots.features(filters, f"Encoder filters U: {heading}")
    rows = {
        "input": _tiles(batches[0].to_pixels(batches[0].inputs), image_shape)[:num_images],
        "reconstruction": _tiles(batches[0].to_pixels(rebuilt), image_shape)[:num_images],
    }
    yield "reconstructions", plots.reconstructions(rows, f"Validation images: {heading}")
    yield (
        "codes",
        plots.unit_histograms(
            statistics.standard_deviation().cpu().numpy(),
            statistics.activity().cpu().numpy(),
            model.energy.variance_threshold,
            f"Validation codes: {heading}",
        ),
    )


def _tiles(vectors: Tensor, image_shape: tuple[int, int]) -> np.ndarray:
    return at_least_float32(vectors).cpu().reshape(-1, *image_shape).numpy()


def log_figure(trainer: lightning.Trainer, name: str, path: Path, figure: Figure) -> None:
    """Hand a figure to the loggers that can show it."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"figures/{name}", [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"figures/{name}", figure, trainer.global_step)
