"""Train a model: ``python -m sparse_lightning.train model=vdl_nl data=mnist``.

Fits, keeps the model with the lowest validation energy, tests it, and leaves in the run directory
``config.yaml``, ``metrics.csv``, ``metrics.json``, ``checkpoints/best.ckpt``,
``checkpoints/last.ckpt`` and ``figures/``.
"""

from __future__ import annotations

from pathlib import Path

import lightning
from hydra.utils import instantiate
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sparse_lightning import config as configuration
from sparse_lightning.experiments import jobs
from sparse_lightning.experiments.runs import RESULTS_FILE, record_settings
from sparse_lightning.files import require_writable, write_json
from sparse_lightning.training.loggers import MetricsTable, record_config, wandb_finished
from sparse_lightning.training.preparation import quieten, require_fit, usable_accelerator
from sparse_lightning.training.results import tested_best
from sparse_lightning.training.resuming import find_beginning, interruption_explained


def train(config: DictConfig) -> dict[str, float]:
    """Run one training from a composed configuration and return its final metrics.

    Raises:
        SettingError, DataError, CheckpointError: before training, for settings, files or
            checkpoints that cannot work.
        DivergenceError: during training; the last good checkpoint is kept.
    """
    quieten()
    run_dir = Path(config.run_dir)
    require_writable("hydra.run.dir", run_dir)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.data)
    model = instantiate(config.model)
    require_fit(model, data)
    beginning = find_beginning(config, model)
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
        trainer.fit(model, data, ckpt_path=beginning.checkpoint, weights_only=True)
        if trainer.fast_dev_run:
            return {}
        results = tested_best(trainer, model, data, table)
        if results is None:
            return {}
        write_json(run_dir / RESULTS_FILE, results.metrics)
        results.show(run_dir)
        return results.metrics


def _begin(config: DictConfig, run_dir: Path) -> None:
    """Record the settings; results of an earlier part of the run are not those of the whole."""
    record_settings(config, run_dir)
    (run_dir / RESULTS_FILE).unlink(missing_ok=True)


def _callbacks(config: DictConfig) -> list[lightning.Callback]:
    return [
        instantiate(callback)
        for name, callback in (config.callbacks or {}).items()
        # Lightning refuses a progress bar where it was told to have none.
        if name != "progress_bar" or config.trainer.enable_progress_bar
    ]


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
