"""Settings of `SparseCoding`: those of the command line, with its parameters in their places."""

from __future__ import annotations

import copy
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import hydra
import numpy as np
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.config import CONFIG_DIR
from sparse_lightning.errors import SettingError, require_count, require_non_negative
from sparse_lightning.experiments.settings import known_image_shape
from sparse_lightning.instantiation import instantiated
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.sparsity_target import SparsityController

if TYPE_CHECKING:
    from sparse_lightning.estimator import SparseCoding

ALGORITHMS = ("auto", "encoder", "inference")
# What other configurations are made from, and a preset of images in files.
NO_OPTIONS = ("base", "image_folder")
# Hydra's state and torch's default generator belong to all threads.
LOCK = Lock()


def settings_of(coding: SparseCoding) -> DictConfig:
    """The settings that the command line would have, with the parameters in their places.

    They are resolved once ``data.input_dim`` is set.

    Raises:
        SettingError: a parameter that cannot work.
    """
    for name, group in (("family", "model"), ("solver", "solver"), ("preset", "preset")):
        known = options(group)
        if getattr(coding, name) not in known:
            raise SettingError(
                f"{name}={getattr(coding, name)!r} is not known: take {', '.join(known)}."
            )
    for name in ("n_components", "hidden_dim", "max_epochs", "batch_size"):
        if getattr(coding, name) is not None:
            require_count(name, getattr(coding, name))
    if coding.alpha is not None:
        require_non_negative("alpha", coding.alpha)
    config = copy.deepcopy(_composed(coding.family, coding.solver, coding.preset))
    for place, value in {
        "code_dim": coding.n_components,
        "hidden_dim": coding.hidden_dim,
        "max_epochs": coding.max_epochs,
        "data.batch_size": coding.batch_size,
        "model.energy.sparsity_weight": coding.alpha,
        "target_zeros": coding.target_zeros,
    }.items():
        if value is not None:
            plain = value.item() if isinstance(value, np.generic) else value
            OmegaConf.update(config, place, plain)
    _require_possible(coding, config)
    return config


def _require_possible(coding: SparseCoding, config: DictConfig) -> None:
    """Raise `SettingError` for parameters that do not go together."""
    rule = config.model.training_rule._target_
    if not rule.endswith(".InferThenRegress"):
        raise SettingError(
            f"family={coding.family!r} learns without inference, by {rule.rpartition('.')[2]}: "
            "take one of the paper's, such as 'vdl_nl'."
        )
    if "image_shape" in config.model.decoder and known_image_shape(config.data) is None:
        raise SettingError(
            f"family={coding.family!r} draws images, and preset={coding.preset!r} has no "
            "image_shape: take preset='mnist' for images of 28×28."
        )
    require_algorithm(coding, config.model.encoder is not None)
    if config.model.energy.variance_weight > 0 and config.data.batch_size < 2:
        raise SettingError(
            f"batch_size={coding.batch_size} leaves family={coding.family!r} no variance in a "
            "batch: take at least 2."
        )
    if coding.target_zeros is not None and coding.alpha == 0:
        raise SettingError(
            f"alpha={coding.alpha} is no start for target_zeros={coding.target_zeros}: take one "
            "above 0, or None."
        )


def require_algorithm(coding: SparseCoding, has_encoder: bool) -> None:
    """Raise `SettingError` for a way to codes that is not known, or needs an encoder."""
    algorithm = coding.transform_algorithm
    if algorithm not in ALGORITHMS:
        raise SettingError(
            f"transform_algorithm={algorithm!r} is not known: take {', '.join(ALGORITHMS)}."
        )
    if algorithm == "encoder" and not has_encoder:
        raise SettingError(
            f"transform_algorithm='encoder' needs an encoder, and family={coding.family!r} has "
            "none: take 'inference' or 'auto'."
        )


def made(config: DictConfig) -> SparseAutoencoder:
    """The model of settings, or the error that a part has against them."""
    return instantiated(config, _convert_="all")


def fewest_rows(config: DictConfig) -> int:
    """Rows that a batch needs: one alone has no variance."""
    return 2 if config.model.energy.variance_weight > 0 else 1


def options(group: str) -> list[str]:
    """What a parameter may be that chooses from a group of ``conf/``."""
    names = (path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    return sorted(name for name in names if name not in NO_OPTIONS)


@cache
def _composed(family: str, solver: str, preset: str) -> DictConfig:
    """Settings as the command line composes them, not yet resolved."""
    with LOCK:
        own = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
                return hydra.compose(
                    "train",
                    [f"model={family}", f"solver={solver}", f"data={preset}", "logger=none"],
                )
        finally:
            GlobalHydra.instance().hydra = own


def controller_of(config: DictConfig) -> SparsityController | None:
    """What seeks λ for a target; None without one."""
    if config.target_zeros is None:
        return None
    settings = {k: v for k, v in config.callbacks.sparsity_target.items() if k != "_target_"}
    return SparsityController(**settings)
