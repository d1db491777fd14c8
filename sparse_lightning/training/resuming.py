"""Going on from a checkpoint: a run's own last one, or another run's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from omegaconf import DictConfig

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import build, describe


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

    @property
    def callbacks(self) -> list[lightning.Callback]:
        """What a run needs that goes on from a checkpoint."""
        if self.checkpoint is None:
            return []
        return [OwnLearningRates() if self.is_own else FreshCallbacks()]


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


def find_beginning(config: DictConfig, model: SparseAutoencoder, has_diverged: bool) -> Beginning:
    """Where the settings say that a model's training begins.

    Args:
        config: the settings.
        model: what is to be trained.
        has_diverged: whether the run did, which may then go on with another optimizer.

    Raises:
        SettingError: the folder holds an earlier run, or the settings leave nothing to train.
        CheckpointError: the checkpoint is damaged, or of another model.
    """
    run_dir = Path(config.run_dir)
    checkpoint = _checkpoint_to_continue(config, run_dir)
    if checkpoint is None:
        return Beginning()
    is_own = checkpoint == last_checkpoint(run_dir)
    first_epoch = _require_same_model(checkpoint, model, is_own, has_diverged)
    _require_resumable(config, first_epoch, is_own)
    return Beginning(checkpoint, is_own, first_epoch)


def last_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run goes on from."""
    return run_dir / "checkpoints" / "last.ckpt"


def _checkpoint_to_continue(config: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint to start from, None for a fresh start."""
    last = last_checkpoint(run_dir)
    if last.exists() and not config.resume:
        raise SettingError(
            f"hydra.run.dir={run_dir} holds an earlier run: add resume=true to continue it, or "
            "choose another folder."
        )
    if last.exists():
        return last
    if config.ckpt_path is not None:
        return Path(config.ckpt_path)
    if config.resume:
        rank_zero_info(f"resume=true, and {run_dir} holds no checkpoint: starting afresh.")
    return None


def _require_same_model(
    checkpoint: Path, model: SparseAutoencoder, is_own: bool, has_diverged: bool
) -> int:
    """Check that a checkpoint fits the model, and return the epoch that it continues with.

    A run that goes on from its own checkpoint keeps its energy and its constraint as well, since
    the best of its models is that of the lowest energy. It keeps its optimizer's settings unless
    it diverged.
    """
    contents = read_checkpoint(checkpoint)
    parameters = contents["hyper_parameters"]
    if parameters["family"] != model.family:
        raise CheckpointError(
            f"{checkpoint} is of family {parameters['family']}, not {model.family}: set "
            f"model={parameters['family']}, or choose another ckpt_path."
        )
    parts = {"decoder": model.decoder, "encoder": model.encoder}
    if not (is_own and has_diverged):
        parts["optimizer"] = model.optimizer_settings
    if is_own:
        parts |= {"energy": model.energy, "constraint": model.constraint}
    for part, own in parts.items():
        # Built and described again: an older description lacks what has been added since.
        theirs, ours = describe(build(parameters[part])) or {}, describe(own) or {}
        names = sorted(name for name in theirs.keys() | ours if theirs.get(name) != ours.get(name))
        if names:
            told = ", ".join(f"{name} {theirs.get(name)}, not {ours.get(name)}" for name in names)
            raise CheckpointError(
                f"{checkpoint} has another model.{part} than the settings ({told}): make them "
                f"equal, or choose another {'folder' if is_own else 'ckpt_path'}."
            )
    return contents["epoch"] + 1


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


@contextmanager
def interruption_explained(run_dir: Path) -> Iterator[None]:
    """Say how to go on, where somebody or Lightning ends the process by an interruption."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if last_checkpoint(run_dir).exists():
            message = (
                f"Interrupted: the same command with hydra.run.dir={run_dir} resume=true goes on "
                "from the last finished epoch."
            )
        else:
            message = (
                "Interrupted before the end of the first epoch: the same command starts afresh."
            )
        rank_zero_only(print)(message, file=sys.stderr)
        raise
