"""One training from its settings to its results.

Fits, keeps the model with the lowest validation energy, tests it, and leaves in the run directory
``config.yaml``, ``metrics.csv``, ``metrics.json``, ``checkpoints/best.ckpt``,
``checkpoints/last.ckpt`` and ``figures/``. A run that an error ends leaves ``failure.json``. One
that diverges leaves the results of its best model until then, too; one that had finished keeps its
own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import lightning
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.own import data_of
from sparse_lightning.errors import DivergenceError
from sparse_lightning.experiments.heartbeat import Heartbeat
from sparse_lightning.experiments.locks import held_alone
from sparse_lightning.experiments.resuming import begin, find_beginning
from sparse_lightning.experiments.runs import (
    DIVERGED_AT,
    Run,
    failure_recorded,
    recorded_seed,
)
from sparse_lightning.experiments.seeds import settle_seed
from sparse_lightning.experiments.settings import convert_settings
from sparse_lightning.files import require_writable
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import require_registered
from sparse_lightning.signals import exit_codes_of_signals, terminated_behind_a_batch
from sparse_lightning.training.epoch_in_progress import EpochInProgress
from sparse_lightning.training.loggers import MetricsTable, record_config, wandb_finished
from sparse_lightning.training.preparation import (
    made_model,
    quieten,
    require_fit,
    require_metric,
    require_objective,
    require_trainable,
    usable_accelerator,
    usable_devices,
)
from sparse_lightning.training.results import best_checkpoint, tested_best


def train(config: DictConfig) -> dict[str, float]:
    """Run one training from a composed configuration and return its final metrics.

    Raises:
        SettingError, DataError, CheckpointError: before training, for settings, files or
            checkpoints that cannot work.
        DivergenceError: during training; the last good checkpoint is kept, and where an epoch was
            validated before, the best model is tested.
    """
    run_dir = Path(config.run_dir)
    require_writable("hydra.run.dir", run_dir)
    with held_alone("hydra.run.dir", run_dir):
        return train_in_held_folder(config)


def train_in_held_folder(config: DictConfig) -> dict[str, float]:
    """`train`, in a folder that no other process works in."""
    quieten()
    run_dir = Path(config.run_dir)
    settle_seed(config, recorded_seed(run_dir))
    convert_settings(config)
    require_trainable(config)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data = data_of(config.data)
    model = made_model(config)
    require_fit(model, data)
    require_registered({f"model.{name}": part for name, part in model.descriptions.items()})
    require_metric(config, model, data)
    require_objective(config, model)
    beginning = find_beginning(config, model, data)
    if not beginning.is_own:
        rank_zero_only(begin)(config)

    table = MetricsTable(run_dir / "metrics.csv")
    with failure_recorded(run_dir), wandb_finished():
        loggers = [table, *_made(config.logger)]
        record_config(loggers, config, data)
        trainer = _trainer(config, loggers, [*beginning.callbacks(config), EpochInProgress(table)])
        table.begin(beginning.first_epoch)
        try:
            with exit_codes_of_signals(), terminated_behind_a_batch(trainer.world_size == 1):
                trainer.fit(model, data, ckpt_path=beginning.checkpoint, weights_only=True)
        except DivergenceError as error:
            _conclude_diverged(error, trainer, model, data, table, run_dir)
        if trainer.fast_dev_run:
            return {}
        results = tested_best(trainer, model, data, table)
        if results is None:
            return {}
        Run(run_dir).replace_results(results.metrics)
        results.show(run_dir)
        return results.metrics


def _trainer(
    config: DictConfig, loggers: list[Logger], callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    """The Trainer of the settings, with callbacks beside theirs."""
    callbacks = [*_callbacks(config), *callbacks, Heartbeat(Path(config.run_dir))]
    return instantiate(
        config.trainer,
        logger=loggers,
        callbacks=callbacks,
        accelerator=usable_accelerator(config),
        devices=usable_devices(config),
        # Without a callback that keeps a checkpoint Lightning would add its own.
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
    )


def _made(parts: DictConfig | None) -> list[Any]:
    """What settings by name make; one that is null is left out."""
    return [instantiate(part) for part in (parts or {}).values() if part is not None]


def _callbacks(config: DictConfig) -> list[lightning.Callback]:
    """Those of the settings, without what the settings of the Trainer switch off."""
    callbacks = _made(config.callbacks)
    trainer = config.trainer
    unwanted = (() if trainer.enable_progress_bar else (ProgressBar,)) + (
        () if trainer.enable_checkpointing else (Checkpoint,)
    )
    return [callback for callback in callbacks if not isinstance(callback, unwanted)]


def _conclude_diverged(
    error: DivergenceError,
    trainer: lightning.Trainer,
    model: SparseAutoencoder,
    data: SplitDataModule,
    table: MetricsTable,
    run_dir: Path,
) -> NoReturn:
    """End a run that diverged with the results of its best model, if it has one.

    A run that had finished, and was given more epochs, keeps the results that it had. Loggers are
    told that the run diverged and not how the model did, so that none shows it among results of
    finished runs.
    """
    best = best_checkpoint(trainer)
    if not best:
        raise error
    run, mark = Run(run_dir), {DIVERGED_AT: trainer.current_epoch}
    for logger in trainer.loggers:
        logger.log_metrics(mark, trainer.global_step)
        logger.save()
    if run.is_finished:
        kept = f"the results of the {run.results['epochs']} epochs before stay"
    else:
        trainer.loggers = [table]
        results = tested_best(trainer, model, data, table)
        if results is not None:
            run.replace_results(results.metrics | mark)
            results.show(run_dir)
        kept = "the best model before has been tested"
    ended = DivergenceError(
        f"{str(error).removesuffix('.')}; {kept}, and resume=true with another solver or learning "
        "rate goes on."
    )
    ended.epoch, ended.__cause__ = mark[DIVERGED_AT], error
    raise ended
