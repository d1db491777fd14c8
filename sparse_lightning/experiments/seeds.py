"""The seed of a run whose settings leave it open."""

from __future__ import annotations

import os
import secrets

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, read_write

from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.settings import MOST_SEED

# By which Lightning hands the seed to the processes that it starts.
SEED_VARIABLE = "PL_GLOBAL_SEED"


def settle_seed(config: DictConfig, recorded: int | None) -> None:
    """Where ``seed`` is null, set it to that of the run's record, or to a new one.

    Raises:
        SettingError: in a process that cannot know which seed the first one has drawn.
    """
    if config.get("seed") is not None:
        return
    if recorded is None and rank_zero_only.rank != 0:
        if SEED_VARIABLE not in os.environ:
            raise SettingError(
                "seed=null cannot be drawn by several processes that were started one by one: "
                "give a seed."
            )
        recorded = int(os.environ[SEED_VARIABLE])
    with read_write(config):
        config.seed = secrets.randbelow(MOST_SEED + 1) if recorded is None else recorded


def require_seed(config: DictConfig) -> None:
    """Raise `SettingError` for a job without a seed, which could not be found by its record."""
    if config.seed is None:
        raise SettingError(
            "seed=null in a sweep would make other jobs each time: give seeds, as in seed=0,1,2."
        )
