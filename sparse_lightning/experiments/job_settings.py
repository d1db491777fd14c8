"""The settings of each job of a sweep, composed before any of them begins."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from sparse_lightning.experiments.early_checks import check_training


def check_jobs(config: DictConfig, loader: Any, combinations: Sequence[Sequence[str]]) -> None:
    """`check_training` of as many jobs as have every value of every setting among them.

    Args:
        config: Hydra's configuration of the whole sweep.
        loader: Hydra's loader of configurations.
        combinations: overrides of each job.

    Raises:
        SettingError, DataError, CheckpointError: for what cannot work.
    """
    for overrides in _with_every_value(combinations):
        check_training(job_settings(config, loader, list(overrides)))


def _with_every_value(combinations: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    seen: set[str] = set()
    for overrides in combinations:
        if not seen.issuperset(overrides):
            yield overrides
            seen.update(overrides)


def job_settings(config: DictConfig, loader: Any, overrides: list[str]) -> DictConfig:
    """A job's settings as its launcher will compose them, resolved."""
    settings = loader.load_sweep_config(config, overrides)
    with open_dict(settings):
        settings.hydra.job.num = 0
        settings.hydra.runtime.output_dir = ""
    hydra = HydraConfig.instance()
    before, hydra.cfg = hydra.cfg, settings
    try:
        subdir = settings.hydra.sweep.subdir
        own = copy.deepcopy(settings)
        with open_dict(own):
            del own["hydra"]
        resolved = OmegaConf.create(OmegaConf.to_container(own, resolve=True))
        resolved.run_dir = str(Path(config.hydra.sweep.dir).absolute() / subdir)
        return resolved
    finally:
        hydra.cfg = before
