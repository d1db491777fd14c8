"""Train a model: ``python -m sparse_lightning.train model=vdl_nl data=mnist``.

Fits, keeps the model with the lowest validation energy, tests it, and leaves in the run directory
``config.yaml``, ``metrics.csv``, ``metrics.json``, ``checkpoints/best.ckpt``,
``checkpoints/last.ckpt`` and ``figures/``. A run that diverges ends with an error, and with the
results of its best model until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import lightning
from hydra.utils import instantiate
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sparse_lightning import config as configuration
from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import DivergenceError
from sparse_lightning.experiments import jobs
from sparse_lightning.experiments.runs import DIVERGED_AT, Run, record_settings
from sparse_lightning.files import require_writable
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.loggers import MetricsTable, record_config, wandb_finished
from sparse_lightning.training.preparation import quieten, require_fit, usable_accelerator
from sparse_lightning.training.results import tested_best
from sparse_lightning.training.resuming import find_beginning, interruption_explained


def train(config: DictConfig) -> dict[str, float]:
    """Run one training from a composed configuration and return its final metrics.

    Raises:
        SettingError, DataError, CheckpointError: before training, for settings, files or
            checkpoints that cannot work.
        DivergenceError: during training; the last good checkpoint is kept, and where an epoch was
            validated before, the best model is tested.
    """
    quieten()
    run_dir = Path(config.run_dir)
    require_writable("hydra.run.dir", run_dir)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.data)
    model = instantiate(config.model)
    require_fit(model, data)
    # The first process says so for all: the mark is gone once it has begun.
    has_diverged = rank_zero_only.rank != 0 or Run(run_dir).diverged_at_epoch is not None
    beginning = find_beginning(config, model, has_diverged)
    rank_zero_only(_begin)(config, run_dir)

    table = MetricsTable(run_dir / "metrics.csv")
    loggers = [table, *(instantiate(logger) for logger in (config.logger or {}).values())]
    with wandb_finished():
        record_config(loggers, config, data)
        callbacks = [*_callbacks(config), *beginning.callbacks]
        trainer = instantiate(
            config.trainer,
            logger=loggers,
            callbacks=callbacks,
            accelerator=usable_accelerator(config),
        )
        table.begin(beginning.first_epoch)
        try:
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


def _begin(config: DictConfig, run_dir: Path) -> None:
    """Record the settings, and keep what a shorter run has come to until this one has ended."""
    run = Run(run_dir)
    record_settings(config, run_dir)
    run.forget_failure()
    run.keep_results()


def _callbacks(config: DictConfig) -> list[lightning.Callback]:
    return [
        instantiate(callback)
        for name, callback in (config.callbacks or {}).items()
        # Lightning refuses a progress bar where it was told to have none.
        if name != "progress_bar" or config.trainer.enable_progress_bar
    ]


def _conclude_diverged(
    error: DivergenceError,
    trainer: lightning.Trainer,
    model: SparseAutoencoder,
    data: SplitDataModule,
    table: MetricsTable,
    run_dir: Path,
) -> NoReturn:
    """End a run that diverged with the results of its best model, if it has one.

    Loggers are told that the run diverged and not how the model did, so that none shows it among
    results of finished runs.
    """
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        raise error
    mark = {DIVERGED_AT: trainer.current_epoch}
    if trainer.is_global_zero:
        Run(run_dir).record_failure(error)
    for logger in trainer.loggers:
        logger.log_metrics(mark, trainer.global_step)
        logger.save()
    trainer.loggers = [table]
    results = tested_best(trainer, model, data, table)
    if results is not None:
        Run(run_dir).replace_results(results.metrics | mark)
        results.show(run_dir)
    raise DivergenceError(
        f"{str(error).removesuffix('.')}; the best model before, of epoch "
        f"{read_checkpoint(best)['epoch']}, has been tested, and resume=true with another solver "
        "or learning rate goes on."
    ) from error


def start(config: DictConfig) -> dict[str, float] | None:
    """What Hydra calls: one run, or one job of a sweep."""
    if jobs.is_job():
        return jobs.run_once(train, config)
    with interruption_explained(Path(config.run_dir)):
        return train(config)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(start, "train")


if __name__ == "__main__":
    # Under its own name, by which the workers of a sweep import it.
    from sparse_lightning.train import main as importable_main

    importable_main()
