"""What can be told of settings before torch is imported, so that a mistake is answered at once.

Nothing here replaces the checks of those who use a setting: these come first, and are few.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.data.patch_pipeline.photographs import require_folder
from sparse_lightning.errors import (
    CheckpointError,
    DataError,
    SettingError,
    require_count,
    require_non_negative,
)
from sparse_lightning.experiments.records import CONFIG_FILE, PLAN_FILE, run_folders
from sparse_lightning.experiments.settings import convert_top_level

# resume=force goes on whatever has changed.
FORCE = "force"
# Data that are read from a folder of the user's photographs.
OF_PHOTOGRAPHS = (
    "sparse_lightning.data.patches.ImagePatches",
    "sparse_lightning.data.image_folder.ImageFolder",
)

ENERGY = "sparse_lightning.energy.Energy"
WEIGHTS = ("sparsity_weight", "variance_weight", "variance_threshold", "encoder_weight")


def check_training(config: DictConfig) -> None:
    """Settings at the top, weights of the energy, where training begins, and where its data are.

    Raises:
        SettingError, DataError, CheckpointError: for what cannot work.
    """
    # Sizes follow from the data, which must have settings of the right kinds before.
    convert_top_level(config)
    OmegaConf.to_container(config, resolve=True)
    require_weights(config)
    require_beginning(config)
    check_data(config)


def require_weights(config: DictConfig) -> None:
    """Raise `SettingError` if a weight of the package's own energy is negative or not finite.

    What is no number is told of by its kind, see `settings`.
    """
    energy = OmegaConf.select(config, "model.energy")
    if energy is None or energy.get("_target_") != ENERGY:
        return
    for name in WEIGHTS:
        value = energy.get(name)
        if isinstance(value, int | float):
            require_non_negative(f"model.energy.{name}", value)


def check_study(config: DictConfig) -> None:
    """Which models are to be studied, that they are there, and where results are logged.

    Raises:
        SettingError, DataError, CheckpointError: for what cannot work.
    """
    OmegaConf.to_container(config, resolve=True)
    if config.study.get("needs_models", True):
        require_models(config.checkpoint, config.runs)
    _require_wandb_alone(config)
    check_data(config)


def _require_wandb_alone(config: DictConfig) -> None:
    """Raise `SettingError` if a study is to log its tables and figures to another logger."""
    loggers = (config.get("logger") or {}).items()
    others = [name for name, settings in loggers if settings is not None and name != "wandb"]
    if others:
        raise SettingError(
            f"logger={others[0]} takes no tables and figures of a study: set logger=wandb, or "
            "logger=none, since hydra.run.dir has all of them."
        )


def check_reproduction(config: DictConfig) -> None:
    """How many trainings are made at a time, and that the photographs for patches are there.

    Raises:
        SettingError, DataError: for what cannot work.
    """
    OmegaConf.to_container(config, resolve=True)
    require_count("jobs", config.jobs)
    root = os.environ.get("IMAGENET_DIR")
    if root and any("data=imagenet_patches" in training for training in config.trainings):
        require_folder(Path(root))


def check_data(config: DictConfig) -> None:
    """Raise `DataError` where the folder of the user's data is not there."""
    data = config.get("data") or {}
    root = data.get("root")
    if root is not None and data.get("_target_") in OF_PHOTOGRAPHS:
        require_folder(Path(root).expanduser())


def require_beginning(config: DictConfig) -> None:
    """Raise unless the settings name one beginning at most, and its checkpoint is there."""
    if config.resume not in (True, False, FORCE):
        raise SettingError(f"resume={config.resume} must be true, false or {FORCE}.")
    if config.ckpt_path is not None and config.init_from is not None:
        raise SettingError(
            f"ckpt_path={config.ckpt_path} and init_from={config.init_from} are two beginnings: "
            "give one of them."
        )
    for name in ("ckpt_path", "init_from"):
        # A run that goes on needs what it once began from no more.
        if config[name] is not None and not config.resume:
            _require_file(name, config[name])


def require_old_folder(config: DictConfig) -> None:
    """Raise `SettingError` where a run is to go on in a folder that is always a new one."""
    settings = OmegaConf.to_container(HydraConfig.instance().cfg, resolve=False)
    if config.resume and "${unique:" in str(settings["hydra"]["run"]["dir"]):
        raise SettingError(
            f"resume={str(config.resume).lower()} goes on with a run in its own folder, and the "
            "folder would be a new one: set hydra.run.dir to that of the run."
        )


def require_models(
    checkpoint: str | Path | Sequence[str] | None, runs: str | Path | Sequence[str] | None
) -> None:
    """Raise unless a study has either checkpoints or folders of runs, and they are there."""
    if (checkpoint is None) == (runs is None):
        raise SettingError(
            "This study needs trained models: set either checkpoint=PATH (one or a list) or "
            "runs=DIR (a run's or a sweep's folder)."
        )
    for path in as_list(checkpoint):
        require_no_sweep(Path(path))
        # A run's folder stands for its best model.
        is_run = (Path(path) / CONFIG_FILE).is_file()
        _require_file("checkpoint", Path(path) / "checkpoints" / "best.ckpt" if is_run else path)
    for folder in as_list(runs):
        if not Path(folder).is_dir():
            raise SettingError(f"runs={folder} is no folder: check the path.")


def require_no_sweep(checkpoint: Path) -> None:
    """Raise `SettingError` for the folder of a sweep, whose runs are several models."""
    if not checkpoint.is_dir() or (checkpoint / CONFIG_FILE).is_file():
        return
    found = sorted(run_folders(checkpoint))
    if found:
        # One that has a model, where there is one.
        one = next((run for run in found if (run / "checkpoints/best.ckpt").is_file()), found[0])
        raise SettingError(
            f"checkpoint={checkpoint} is a folder of runs, {len(found)} in all: give one of them, "
            f"such as checkpoint={one}."
        )


def require_runs(folder: Path) -> None:
    """Raise `DataError` unless there is a run, or the plan of a sweep, in a folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the folder of a sweep, or one above it.")
    if next(run_folders(folder), None) is None and not (folder / PLAN_FILE).exists():
        raise DataError(f"{folder} holds no run: give the folder of a sweep, or one above it.")


def as_list(value: str | Path | Sequence[str] | None) -> list[str | Path]:
    """A setting that is one value, several, or none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | Path) else list(value)


def _require_file(setting: str, path: str | Path) -> None:
    if not Path(path).is_file():
        raise CheckpointError(
            f"{setting}={path}: there is no checkpoint at {path}; check the path."
        )
