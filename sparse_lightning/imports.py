"""Parts from outside: ``imports=[my_package.parts]`` on the command line.

A part registers itself when its module is imported (`sparse_lightning.registry`). Only the person
at the keyboard says what is imported. What a checkpoint, a shared model or a run's record names is
never imported because they name it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparse_lightning.errors import SettingError


def names_of_imports(config: DictConfig) -> list[str]:
    """The modules that ``imports=`` names: one, or a list; none where the setting is not there.

    Raises:
        SettingError: something that is no name.
    """
    found: Any = config.get("imports")
    if OmegaConf.is_list(found):
        found = OmegaConf.to_container(found, resolve=True)
    names = [found] if isinstance(found, str) else list(found or [])
    for name in names:
        if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
            raise SettingError(
                f"imports={found} must list modules by their dotted names, as in "
                "imports=[my_package.parts]."
            )
    return names


def import_parts(config: DictConfig) -> None:
    """Import the modules that ``imports=`` names, in order.

    They are looked for where Python looks, and in the folder where the command was given.

    Raises:
        SettingError: a module that is not there, or that fails.
    """
    names = names_of_imports(config)
    here = os.getcwd()
    # Neither an installed script nor a worker of a sweep looks there by itself.
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(name)
        except SettingError:
            raise
        except Exception as error:
            raise SettingError(
                f"imports={name} cannot be imported ({type(error).__name__}: {error}): check the "
                f"name, and that its folder is {here} or on PYTHONPATH."
            ) from error
