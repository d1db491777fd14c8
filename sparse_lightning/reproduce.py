"""Reproduce the paper: ``python -m sparse_lightning.reproduce scale=small``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sparse_lightning import config as configuration
from sparse_lightning.trainings import expand, run_all


def reproduce(config: DictConfig) -> None:
    folder = Path(config.folder)
    trainings = expand(config.trainings, config.everywhere, folder / "trainings")
    run_all(trainings, config.jobs)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(reproduce, "reproduce")


if __name__ == "__main__":
    main()
