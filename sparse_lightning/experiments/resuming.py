"""Going on from a checkpoint: a run's own last one, or another run's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from omegaconf import DictConfig

from sparse_lightning.checkpoint_format import epochs_behind, is_inside_epoch, read_checkpoint
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.experiments.command_line import continuing_command
from sparse_lightning.experiments.early_checks import FORCE, require_beginning
from sparse_lightning.experiments.fingerprint import TARGET
from sparse_lightning.experiments.runs import RESULTS_FILE, Run, record_command, record_settings
from sparse_lightning.experiments.same_run import (
    differences,
    require_same_data,
    require_same_model,
    require_same_settings,
    whole_checkpoint,
)
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.epoch_in_progress import EPOCH_IN_PROGRESS


@dataclass(frozen=True)
class Beginning:
    """Where a training begins.

    Attributes:
        checkpoint: to start from, None for a fresh start.
        is_own: whether the checkpoint is the run's own last one.
        first_epoch: the epoch that comes first.
    """

    checkpoint: Path | None = None
    is_own: bool = False
    first_epoch: int = 0

    def callbacks(self, config: DictConfig) -> list[lightning.Callback]:
        """What a run with these settings needs that goes on from a checkpoint."""
        if self.checkpoint is None:
            return []
        return [BeginAgain(config), OwnOptimizerSettings()] if self.is_own else [FreshCallbacks()]


class FreshCallbacks(lightning.Callback):
    """For a run that starts from another's checkpoint: its best model and time are its own."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: SparseAutoencoder, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["callbacks"] = {}
        checkpoint.pop(EPOCH_IN_PROGRESS, None)


class OwnOptimizerSettings(lightning.Callback):
    """For a run that goes on: learning rates and Adam's other numbers are those of its settings.

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
            group |= {name: new[name] for name in ("initial_lr", "weight_decay", "betas", "eps")}


class BeginAgain(lightning.Callback):
    """For a run that goes on: what it left stays until the first new epoch begins.

    Then the settings are recorded anew, and results of an earlier part are no longer those of the
    whole. A run that cannot go on loses nothing.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    @rank_zero_only
    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        begin(self.config)


def begin(config: DictConfig) -> None:
    """Record the settings, and keep what a shorter run has come to until this one has ended."""
    run = Run(Path(config.run_dir))
    record_settings(config, run.folder)
    record_command(config, run.folder)
    run.forget_failure()
    run.keep_results()


def find_beginning(
    config: DictConfig, model: SparseAutoencoder, data: SplitDataModule
) -> Beginning:
    """Where the settings say that a model's training begins.

    Args:
        config: the settings.
        model: what is to be trained; it gets the weights of ``init_from``.
        data: what it is to be trained on.

    Raises:
        SettingError: the folder holds an earlier run or one with other settings, or the settings
            leave nothing to train.
        CheckpointError: the checkpoint is damaged, or of another model.
    """
    run_dir = Path(config.run_dir)
    checkpoint = _checkpoint_to_continue(config, run_dir)
    if checkpoint is None:
        if config.init_from is not None:
            initialise(model, Path(config.init_from))
        return Beginning()
    run = Run(run_dir)
    is_own = checkpoint == run.last_checkpoint
    contents = whole_checkpoint(run_dir) if is_own else read_checkpoint(checkpoint)
    parts = ["decoder", "encoder"]
    if is_own and config.resume != FORCE:
        # One that diverged may go on with another optimizer. The first process says so for all: the
        # mark is gone once it has begun.
        has_diverged = rank_zero_only.rank != 0 or run.diverged_at_epoch is not None
        require_same_settings(config, run_dir, has_diverged)
        require_same_data(contents, data)
        # The best model of a run is that of the lowest energy.
        parts += ["energy", "constraint"] + ([] if has_diverged else ["optimizer"])
    if not is_own:
        parts += ["optimizer"]
    if is_own and config.get(TARGET) is not None:
        # The search goes on from the λ that it had come to.
        model.set_sparsity_weight(contents["hyper_parameters"]["energy"]["sparsity_weight"])
    require_same_model(checkpoint, contents, model, parts, is_own)
    # From its beginning, or from inside it.
    first_epoch = epochs_behind(contents)
    _require_resumable(config, first_epoch, is_own)
    return Beginning(checkpoint, is_own, first_epoch)


def _checkpoint_to_continue(config: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint to start from, None for a fresh start."""
    require_beginning(config)
    last = Run(run_dir).last_checkpoint
    if last.exists():
        if not config.resume:
            raise SettingError(
                f"hydra.run.dir={run_dir} holds an earlier run: add resume=true to continue it, or "
                "choose another folder."
            )
        return last
    if (run_dir / RESULTS_FILE).exists():
        raise SettingError(
            f"hydra.run.dir={run_dir} holds the results of an earlier run without {last.name}: "
            "choose another folder."
        )
    if config.ckpt_path is not None:
        return Path(config.ckpt_path)
    if config.resume:
        rank_zero_info(f"resume=true, and {run_dir} holds no checkpoint: starting afresh.")
    return None


def initialise(model: SparseAutoencoder, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint, and nothing else of it.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its decoder or encoder is another one.
    """
    contents = read_checkpoint(checkpoint)
    parameters = contents["hyper_parameters"]
    for name in ("decoder", "encoder"):
        part = getattr(model, name)
        if part is None:
            continue
        told = differences(parameters[name], part)
        if told:
            raise CheckpointError(
                f"init_from={checkpoint} has another model.{name} than the settings ({told}): make "
                "them equal, or choose another checkpoint."
            )
        prefix = f"{name}."
        part.load_state_dict(
            {
                key.removeprefix(prefix): value
                for key, value in contents["state_dict"].items()
                if key.startswith(prefix)
            }
        )
    if model.constraint is not None:
        model.constraint(model.decoder)


def _require_resumable(config: DictConfig, first_epoch: int, is_own: bool) -> None:
    if config.trainer.max_steps != -1:
        raise SettingError(
            f"trainer.max_steps={config.trainer.max_steps} and a checkpoint do not go together: "
            "Lightning would count an epoch twice. Set trainer.max_epochs instead."
        )
    limit = config.trainer.max_epochs
    if not is_own and limit is not None and 0 <= limit <= first_epoch:
        raise SettingError(
            f"ckpt_path={config.ckpt_path} has {first_epoch} epochs behind it, which leaves none "
            f"of trainer.max_epochs={limit}: set a larger one."
        )
    if is_own and limit is not None and 0 <= limit < first_epoch:
        raise SettingError(
            f"hydra.run.dir={config.run_dir} has {first_epoch} epochs behind it, more than "
            f"trainer.max_epochs={limit}: set at least as many, or choose another folder."
        )


@contextmanager
def interruption_explained(config: DictConfig) -> Iterator[None]:
    """Say how to go on, where somebody or Lightning ends the process by an interruption."""
    run_dir = Path(config.run_dir)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        told = f"This goes on {_point(run_dir)}:\n  {continuing_command(run_dir)}"
        if config.trainer.max_steps != -1 and Run(run_dir).last_checkpoint.exists():
            told = (
                f"A run with trainer.max_steps={config.trainer.max_steps} cannot be resumed: begin "
                "again in another folder, and limit it by trainer.max_epochs instead."
            )
        rank_zero_only(print)(f"Interrupted. {told}", file=sys.stderr)
        raise


def _point(run_dir: Path) -> str:
    """From where an interrupted run goes on, in words."""
    checkpoint = Run(run_dir).last_checkpoint
    if not checkpoint.exists():
        return "from the beginning"
    # One that is damaged is told of where a run is to go on.
    with suppress(CheckpointError):
        contents = read_checkpoint(checkpoint)
        if is_inside_epoch(contents):
            return f"inside epoch {contents['epoch']}"
    return "from the last finished epoch"
