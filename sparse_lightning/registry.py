"""The parts of a model as plain data, so that a checkpoint needs no pickled objects.

A part's constructor arguments are its attributes, by equal names (scikit-learn's convention).
`describe` reads them into a dictionary of numbers, strings and descriptions of further parts.
`build` makes the part again, from classes that were registered: a checkpoint cannot name other
code to run. A class is registered by the decorator `register`, once its module is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

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
    """``{"name": class name, argument: value, ...}``; plain data pass through.

    Raises:
        SettingError: the part does not keep an argument, or one that cannot be described.
    """
    if isinstance(part, np.generic):
        return part.item()
    if part is None or isinstance(part, PLAIN):
        return part
    kind = type(part).__name__
    settings = {name: describe(_kept(part, name)) for name in _arguments(part)}
    return {"name": kind, **settings}


def _arguments(part: Any) -> Iterable[str]:
    """The names of a part's constructor arguments."""
    kind = type(part)
    if kind.__name__ not in REGISTRY and (inspect.isroutine(part) or not hasattr(part, "__dict__")):
        raise SettingError(
            f"A part of the model has the argument {part!r}, which a checkpoint cannot describe: "
            "take a number, a text, a list, or a part that is registered."
        )
    return inspect.signature(kind).parameters


def _kept(part: Any, name: str) -> Any:
    """The argument that a part has kept as an attribute of the same name."""
    try:
        return getattr(part, name)
    except AttributeError as error:
        raise SettingError(
            f"{type(part).__name__} does not keep its argument {name!r}, by which a checkpoint "
            f"would describe it: set self.{name} = {name} in its constructor."
        ) from error


def plain_numbers(part: Any) -> None:
    """Turn numpy's numbers among the fields of a frozen dataclass into Python's."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(part, field.name, value.item())


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
