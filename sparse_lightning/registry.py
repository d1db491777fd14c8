"""The parts of a model as plain data, so that a checkpoint needs no pickled objects.

A part's constructor arguments are its attributes, by equal names (scikit-learn's convention).
`describe` reads them into a dictionary of numbers, strings and descriptions of further parts.
`build` makes the part again, from classes that were registered: a checkpoint cannot name other
code to run. A class is registered by the decorator `register`, once its module is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from sparse_lightning.errors import CheckpointError, SettingError

REGISTRY: dict[str, type] = {}
PLAIN = (bool, int, float, str, list, tuple, dict)
Part = TypeVar("Part", bound=type)


def register(part: Part) -> Part:
    """Let checkpoints name this class.

    Raises:
        SettingError: another class of that name is registered.
    """
    name = part.__name__
    known = REGISTRY.get(name, part)
    if (known.__module__, known.__qualname__) != (part.__module__, part.__qualname__):
        raise SettingError(
            f"A part named {name} is registered already, by {known.__module__}: "
            f"give the one in {part.__module__} another name."
        )
    REGISTRY[name] = part
    return part


def describe(part: Any) -> Any:
    """``{"name": class name, argument: value, ...}``; plain data pass through."""
    if part is None or isinstance(part, PLAIN):
        return part
    arguments = inspect.signature(type(part)).parameters
    settings = {name: describe(getattr(part, name)) for name in arguments}
    return {"name": type(part).__name__, **settings}


def build(part: Any) -> Any:
    """The part that a description (a mapping with a ``name``) stands for; others pass through.

    Raises:
        CheckpointError: a description of something that is not registered, or with settings that
            it does not have.
    """
    if not isinstance(part, Mapping) or "name" not in part:
        return part
    settings = {key: build(value) for key, value in part.items() if key != "name"}
    name = part["name"]
    if not isinstance(name, str) or name not in REGISTRY:
        raise CheckpointError(
            f"The checkpoint holds a part named {name!r}, which is not registered "
            f"({', '.join(sorted(REGISTRY))} are): import the module that registers it, or give "
            "the part itself as a keyword argument of load_from_checkpoint."
        )
    try:
        return REGISTRY[name](**settings)
    except TypeError as error:
        raise CheckpointError(
            f"The checkpoint is of another version of sparse_lightning: its {name} has settings "
            f"that this version does not know ({error}). Use the version that wrote it."
        ) from error
