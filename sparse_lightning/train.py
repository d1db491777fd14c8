"""Train a model: ``python -m sparse_lightning.train model=vdl_nl data=mnist``.

See `sparse_lightning.experiments.training_run` for what is done and what it leaves. Settings are
composed and checked here, before torch is imported: a mistake is answered at once.
"""

from __future__ import annotations

from omegaconf import DictConfig

from sparse_lightning import config as configuration
from sparse_lightning.experiments.early_checks import check_training, require_old_folder
from sparse_lightning.imports import import_parts


def train(config: DictConfig) -> dict[str, float]:
    """Run one training from a composed configuration and return its final metrics.

    Raises:
        SettingError, DataError, CheckpointError: before training, for settings, files or
            checkpoints that cannot work.
        DivergenceError: during training; the last good checkpoint is kept, and where an epoch was
            validated before, the best model is tested.
    """
    import_parts(config)
    check_training(config)
    from sparse_lightning.experiments import training_run

    return training_run.train(config)


def start(config: DictConfig) -> dict[str, float] | float | None:
    """What Hydra calls: one run, or one job of a sweep."""
    import_parts(config)
    check_training(config)
    from sparse_lightning.experiments import jobs, resuming, training_run

    if jobs.is_job():
        results = jobs.run_once(training_run.train_in_held_folder, config)
        return jobs.objective_of(config, results)
    require_old_folder(config)
    with resuming.interruption_explained(config):
        return training_run.train(config)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(start, "train")


if __name__ == "__main__":
    # Under its own name, by which the workers of a sweep import it.
    from sparse_lightning.train import main as importable_main

    importable_main()
