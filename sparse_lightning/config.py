"""How configurations are found, resolved, and complained about.

The files live in ``conf/`` at the top of the repository and travel inside the wheel.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_lightning.errors import NoModelsError, SettingError, causes_of, told_to_the_user
from sparse_lightning.experiments.fingerprint import digest, effective_settings, of_any_length
from sparse_lightning.experiments.settings import known_image_shape, known_input_dim
from sparse_lightning.files import storage_message
from sparse_lightning.machine import require_supported, tolerate_poor_terminals
from sparse_lightning.signals import exit_codes_of_signals, terminated_in_order

PACKAGE = Path(__file__).parent
CONFIG_DIR = next(
    folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()
)


MOST_CODE_DIM = 1024
# The grids of a family, and what is taken from them.
GRIDS = {"sparsity_weights": "model.energy.sparsity_weight", "active_counts": "model.encoder.k"}

METRIC = "val/energy"

# What symbols and other programs' names stand for.
MEANT = {
    **dict.fromkeys(("lambda", "lam", "alpha", "l1"), "model.energy.sparsity_weight (λ)"),
    "beta": "model.energy.variance_weight (β)",
    "gamma": "model.energy.encoder_weight (γ)",
    **dict.fromkeys(("lr", "learning_rate"), "model.optimizer.decoder_learning_rate"),
}


def level_of(
    grid: ListConfig | None, level: int | None, otherwise: float, name: str = "sparsity_weights"
) -> float:
    """Resolver of λ and k: the grid's value at a level, or a default where none is asked for."""
    # Without a grid a level picks a target.
    if level is None or grid is None:
        return otherwise
    return _at(level, name, grid)


def metric_of(rule: str) -> str:
    """Resolver of the metric by which a training rule keeps the best model.

    A rule of another package names its own, once its module is imported. A recorded setting is
    resolved too, and imports nothing.
    """
    module, _, name = rule.rpartition(".")
    if module.partition(".")[0] == PACKAGE.name:
        return METRIC
    return getattr(getattr(sys.modules.get(module), name, None), "metric", METRIC)


def target_of(
    targets: ListConfig,
    grids: Sequence[ListConfig | None],
    level: int | None,
    *,
    _root_: DictConfig,
) -> float | None:
    """Resolver of the share of zeros asked for: the target at a level, where there is no grid.

    Raises:
        SettingError: the encoder keeps the k largest components, whose zeros do not follow from λ.
    """
    if level is None or any(grid is not None for grid in grids):
        return None
    if OmegaConf.select(_root_, GRIDS["active_counts"]) is not None:
        raise SettingError(
            f"sparsity_level={level} picks k from a grid, and for these data "
            f"model={_root_.model.get('family')} has none: set model.encoder.k instead."
        )
    return _at(level, "zeros_targets", targets)


def _at(level: int, name: str, values: ListConfig) -> float:
    if level not in range(len(values)):
        raise SettingError(
            f"sparsity_level={level} must be between 0 and {len(values) - 1}: "
            f"{name}={list(values)} has {len(values)} values."
        )
    return values[level]


def from_on(bound: float, value: float, below: float, number: float) -> float:
    """Resolver: ``value`` for a number from ``bound`` on, ``below`` for a smaller one."""
    return value if number >= bound else below


def input_dim(*, _root_: DictConfig) -> int:
    """Resolver: d, the size of an input, as the data of the settings have it.

    Settings that name it, and a class that has one size for all, say so without being made.
    """
    if (given := known_input_dim(_root_.data)) is not None:
        return given
    # Settings are composed and checked before torch is imported, where that can be.
    from sparse_lightning.data.own import input_dim_of

    return input_dim_of(_root_.data)


def image_shape(*, _root_: DictConfig) -> list[int]:
    """Resolver: the shape of an image, as the data of the settings have it.

    Raises:
        SettingError: the data are no images.
    """
    shape = known_image_shape(_root_.data)
    if shape is None:
        from sparse_lightning.data.own import data_of

        shape = data_of(_root_.data).image_shape
    if shape is None:
        raise SettingError(
            f"model.decoder.image_shape is that of the data, and {_root_.data._target_} has none: "
            "set data.image_shape, or choose a decoder that is not convolutional."
        )
    return list(shape)


def code_dim(given: int | None, *, _root_: DictConfig) -> int:
    """Resolver: l, where none is given twice the size of an input, and 1,024 at most."""
    return min(2 * input_dim(_root_=_root_), MOST_CODE_DIM) if given is None else given


def over_input_dim(numbers: Any, *, _root_: DictConfig) -> Any:
    """Resolver: a number, or each of a list, over the size of an input, to three digits."""
    size = input_dim(_root_=_root_)
    if isinstance(numbers, ListConfig | list):
        # A plain list could not be resolved in place, as --cfg job --resolve does.
        return ListConfig([float(f"{number / size:.3g}") for number in numbers])
    return float(f"{numbers / size:.3g}")


def times_input_dim(number: float, *, _root_: DictConfig) -> float:
    """Resolver: a number times the size of an input, to three digits."""
    return float(f"{number * input_dim(_root_=_root_):.3g}")


def wandb_mode() -> str:
    """Resolver: W&B's mode, offline where it has no API key to go online with.

    It looks where W&B looks, without asking anybody: WANDB_MODE, WANDB_API_KEY and the netrc file.

    Raises:
        SettingError: a variable of the environment has a value that W&B does not take.
    """
    from sparse_lightning.training import wandb_settings

    wandb_settings.environment()
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    return "online" if wandb_settings.has_api_key() else "offline"


def settings_digest(*, _root_: DictConfig) -> str:
    """Resolver: what stands for all settings that can change the result."""
    return digest(of_any_length(effective_settings(_root_)))


def number(value: float) -> str:
    """Resolver: a number as names have it, the same for 1 and 1.0."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def sparsity(*, _root_: DictConfig) -> str:
    """Resolver: how a name tells the sparsity: by the target, by k where there is one, or by λ."""
    if _root_.target_zeros is not None:
        return f"zeros{number(_root_.target_zeros)}"
    k = OmegaConf.select(_root_, GRIDS["active_counts"])
    if k is not None:
        return f"k{k}"
    return f"lambda{number(OmegaConf.select(_root_, GRIDS['sparsity_weights']))}"


def label(name: str, swept: ListConfig, *, _root_: DictConfig) -> str:
    """Resolver: a name, and the values of swept settings that it does not tell.

    The value of a group of settings is what was chosen from it.
    """
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    for key in swept:
        value = chosen[key] if key in chosen else OmegaConf.select(_root_, key)
        name += f"-{re.split('[./]', key)[-1]}{value}"
    return name


def unique() -> str:
    """Resolver: six hexadecimal digits that no other run's folder has."""
    return secrets.token_hex(3)


def choices(group: str) -> str:
    """Resolver: what a group of settings may be set to, as ``--help`` shows it."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, ObjectType.CONFIG)
    # What the others are made from is no choice.
    return ", ".join(name for name in names if name != "base")


def register_resolvers() -> None:
    """Make the resolvers that the configs use known to OmegaConf."""
    OmegaConf.register_new_resolver("input_dim", input_dim, replace=True)
    OmegaConf.register_new_resolver("image_shape", image_shape, replace=True)
    OmegaConf.register_new_resolver("code_dim_of", code_dim, replace=True)
    OmegaConf.register_new_resolver("level_of", level_of, replace=True)
    OmegaConf.register_new_resolver("metric_of", metric_of, replace=True)
    OmegaConf.register_new_resolver("target_of", target_of, replace=True)
    OmegaConf.register_new_resolver("from", from_on, replace=True)
    OmegaConf.register_new_resolver("over_input_dim", over_input_dim, replace=True)
    OmegaConf.register_new_resolver("times_input_dim", times_input_dim, replace=True)
    OmegaConf.register_new_resolver("wandb_mode", wandb_mode, replace=True)
    # One program has one folder, however often its name is asked for.
    OmegaConf.register_new_resolver("unique", unique, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("number", number, replace=True)
    OmegaConf.register_new_resolver("label", label, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("sparsity", sparsity, replace=True)
    OmegaConf.register_new_resolver("settings_digest", settings_digest, replace=True)


# A worker that unpickles a job imports this, and resolves the job's settings next.
register_resolvers()


def run(job: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run a job under Hydra; an error meant for the user becomes one sentence and exit code 1.

    A study without models ends with exit code 3. SIGTERM ends a job with 143, SIGINT with 130.

    ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """
    tolerate_poor_terminals()
    entry = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)
    asked = os.environ.get("HYDRA_FULL_ERROR", "0")
    shows_traceback = asked != "0"
    # With it Hydra raises what it would otherwise print in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @functools.wraps(job)
    def job_as_asked(config: DictConfig) -> Any:
        # Commands that the job starts show a traceback where the user wants one.
        os.environ["HYDRA_FULL_ERROR"] = asked
        try:
            return job(config)
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    try:
        require_supported()
        with exit_codes_of_signals(), terminated_in_order():
            entry(job_as_asked)()
    except Exception as error:
        message = None if shows_traceback else user_message(error, config_name)
        if message is None:
            raise
        if isinstance(told_to_the_user(error), NoModelsError):
            print(f"\nerror: {message}", file=sys.stderr)
            sys.exit(NoModelsError.exit_code)
        sys.exit(f"\nerror: {message}")


def user_message(error: BaseException, config_name: str) -> str | None:
    """The sentence for the user in an error's chain of causes, None where there is none."""
    if (told := told_to_the_user(error)) is not None:
        return str(told)
    chain = list(causes_of(error))
    for cause in chain:
        if isinstance(cause, HydraException):
            return str(cause) + nearest_names(str(cause), config_name)
    if isinstance(error, OmegaConfBaseException):
        setting, (told, *_) = error.full_key, str(error).splitlines() or [""]
        return f"{setting}: {told}" if setting else told
    refused = (storage_message(cause) for cause in chain if isinstance(cause, OSError))
    return next((message for message in refused if message), None)


def nearest_names(message: str, config_name: str) -> str:
    """What the misspelt name in one of Hydra's messages may have been meant to be."""
    missing = re.search(r"Could not override '([^']+)'|Could not find '([^']+)'", message)
    if missing is None:
        return ""
    name = next(group for group in missing.groups() if group).split("@")[0]
    if meant := MEANT.get(name.lower()):
        return f"\nWas {meant} meant?"
    if name.startswith("hydra.launcher."):
        return "\nThe launcher chosen has no such setting: add hydra/launcher=joblib."
    group, _, option = name.rpartition("/")
    if group and (CONFIG_DIR / group).is_dir():
        known = [f"{group}={path.stem}" for path in (CONFIG_DIR / group).glob("*.yaml")]
        name = f"{group}={option}"
    else:
        known = sorted({*_setting_names(config_name), *_group_names()})
        if name.startswith("data.") and not any(own.startswith("data.") for own in known):
            return "\nFirst choose the data, such as data=arrays; conf/data has their settings."
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"\nNearest valid names: {', '.join(nearest)}." if nearest else ""


def _group_names() -> Iterator[str]:
    for folder in CONFIG_DIR.rglob("*"):
        if folder.is_dir():
            yield folder.relative_to(CONFIG_DIR).as_posix()


def _setting_names(config_name: str) -> Iterator[str]:
    """Dotted names of every setting of the default configuration."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose(config_name), resolve=False)

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    yield from walk(config, "")
