"""How configurations are found, resolved, and complained about.

The files live in ``conf/`` at the top of the repository and travel inside the wheel.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from sparse_lightning.errors import FOR_THE_USER, SettingError
from sparse_lightning.experiments.fingerprint import digest, effective_settings, of_any_length
from sparse_lightning.files import storage_message
from sparse_lightning.machine import require_supported, tolerate_poor_terminals
from sparse_lightning.signals import exit_codes_of_signals, terminated_in_order

PACKAGE = Path(__file__).parent
CONFIG_DIR = next(
    folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()
)


def level_of(grid: ListConfig | None, level: int | None, otherwise: float) -> float:
    """Resolver of λ: the grid's value at a level, or a default where no level is asked for."""
    if level is None:
        return otherwise
    if grid is None:
        raise SettingError(
            f"sparsity_level={level} needs a grid: set sparsity_weights=[...], or give "
            "model.energy.sparsity_weight itself."
        )
    if level not in range(len(grid)):
        raise SettingError(
            f"sparsity_level={level} must be between 0 and {len(grid) - 1}: "
            f"sparsity_weights={list(grid)} has {len(grid)} values."
        )
    return grid[level]


def from_on(bound: float, value: float, below: float, number: float) -> float:
    """Resolver: ``value`` for a number from ``bound`` on, ``below`` for a smaller one."""
    return value if number >= bound else below


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


def label(name: str, swept: ListConfig, *, _root_: DictConfig) -> str:
    """Resolver: a name, and the values of swept settings that it does not tell."""
    values = (f"-{key.rpartition('.')[2]}{OmegaConf.select(_root_, key)}" for key in swept)
    return name + "".join(values)


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
    OmegaConf.register_new_resolver("level_of", level_of, replace=True)
    OmegaConf.register_new_resolver("from", from_on, replace=True)
    OmegaConf.register_new_resolver("wandb_mode", wandb_mode, replace=True)
    # One program has one folder, however often its name is asked for.
    OmegaConf.register_new_resolver("unique", unique, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("number", number, replace=True)
    OmegaConf.register_new_resolver("label", label, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("settings_digest", settings_digest, replace=True)


# A worker that unpickles a job imports this, and resolves the job's settings next.
register_resolvers()


def run(job: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run a job under Hydra; an error meant for the user becomes one sentence and exit code 1.

    SIGTERM ends it with exit code 143, SIGINT with 130.

    ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """
    tolerate_poor_terminals()
    entry = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)
    shows_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    # With it Hydra raises what it would otherwise print in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        require_supported()
        with exit_codes_of_signals(), terminated_in_order():
            entry(job)()
    except Exception as error:
        message = None if shows_traceback else user_message(error, config_name)
        if message is None:
            raise
        sys.exit(f"\nerror: {message}")


def user_message(error: BaseException, config_name: str) -> str | None:
    """The sentence for the user in an error's chain of causes, None where there is none."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, FOR_THE_USER):
            return str(cause)
    for cause in chain:
        if isinstance(cause, HydraException):
            return str(cause) + nearest_names(str(cause), config_name)
    refused = (storage_message(cause) for cause in chain if isinstance(cause, OSError))
    return next((message for message in refused if message), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def nearest_names(message: str, config_name: str) -> str:
    """What the misspelt name in one of Hydra's messages may have been meant to be."""
    missing = re.search(r"Could not override '([^']+)'|Could not find '([^']+)'", message)
    if missing is None:
        return ""
    name = next(group for group in missing.groups() if group).split("@")[0]
    group, _, option = name.rpartition("/")
    if group and (CONFIG_DIR / group).is_dir():
        known = [f"{group}={path.stem}" for path in (CONFIG_DIR / group).glob("*.yaml")]
        name = f"{group}={option}"
    else:
        known = sorted({*_setting_names(config_name), *_group_names()})
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
