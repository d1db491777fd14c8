"""The parts of a model as plain data, so that a checkpoint needs no pickled objects.

A part keeps each constructor argument as an attribute of the same name (scikit-learn's convention).
`describe` reads these attributes into a dictionary of numbers, strings and descriptions of further
parts. `build` makes the part again, from registered classes only: a checkpoint cannot name other
code to run. The decorator `register` registers a class when its module is imported.

The description of a part from outside this package also names its module. The error that refuses an
unregistered part shows that name; nothing is imported because of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from sparse_lightning.errors import CheckpointError, SettingError

REGISTRY: dict[str, type] = {}
PLAIN = (bool, int, float, str)
NAME = "name"
# No constructor has an argument of that name: it is a keyword of the language.
MODULE = "import"
OWN = __name__.partition(".")[0]
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

    A part of another package has its module as well, under ``import``.

    Raises:
        SettingError: the part does not keep an argument, or one that cannot be described.
    """
    if isinstance(part, np.generic):
        return part.item()
    if isinstance(part, list | tuple):
        return type(part)(describe(item) for item in part)
    if isinstance(part, dict):
        return {key: describe(value) for key, value in part.items()}
    if isinstance(part, Tensor) and part.ndim == 0:
        return part.item()
    if part is None or isinstance(part, PLAIN):
        return part
    kind = type(part)
    if NAME in _arguments(part):
        raise SettingError(
            f"{kind.__name__} has an argument {NAME!r}, which in a checkpoint is the name of the "
            "class: give the argument another name."
        )
    settings = {name: describe(_kept(part, name)) for name in _arguments(part)}
    origin = {} if _is_own(kind.__module__) else {MODULE: kind.__module__}
    return {NAME: kind.__name__, **origin, **settings}


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == OWN


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
    if isinstance(part, list | tuple):
        return type(part)(build(item) for item in part)
    if not isinstance(part, Mapping):
        return part
    if NAME not in part:
        return {key: build(value) for key, value in part.items()}
    settings = {key: build(value) for key, value in part.items() if key not in (NAME, MODULE)}
    kind = _registered(part)
    if kind is None:
        raise CheckpointError(_advice(part[NAME], part.get(MODULE)))
    try:
        inspect.signature(kind).bind(**settings)
    except TypeError as error:
        package = kind.__module__.partition(".")[0]
        raise CheckpointError(
            f"{kind.__name__} has settings that this version does not know, or lacks some "
            f"({error}): correct them, or, where a checkpoint holds them, use the version of "
            f"{package} that wrote it."
        ) from error
    return kind(**settings)


def _registered(description: Mapping[str, Any]) -> type | None:
    """The class that a description means, None where it is not registered."""
    name = description[NAME]
    kind = REGISTRY.get(name) if isinstance(name, str) else None
    # One of this package does not stand for one of another that has its name.
    is_another = kind is not None and MODULE in description and _is_own(kind.__module__)
    return None if is_another else kind


def require_registered(descriptions: Mapping[str, Any]) -> None:
    """Raise `SettingError` for a part that no checkpoint could name, before work is put into it.

    Args:
        descriptions: of parts (see `describe`), by the setting that each is of.
    """
    for setting, part in descriptions.items():
        if isinstance(part, list | tuple):
            require_registered({f"{setting}[{i}]": item for i, item in enumerate(part)})
        if not isinstance(part, Mapping):
            continue
        if NAME in part and _registered(part) is None:
            raise SettingError(
                f"{setting}={part[NAME]} is not registered, so that no checkpoint of it could be "
                f"loaded: put @register (of {OWN}) above the class in {part.get(MODULE)}."
            )
        require_registered({f"{setting}.{key}": value for key, value in part.items()})


def _advice(name: Any, module: Any) -> str:
    """What to do about a part that a checkpoint names and that is not registered."""
    told = (
        f"The checkpoint holds a part named {name!r}, which is not registered "
        f"({', '.join(sorted(REGISTRY))} are): "
    )
    given = (
        "give the part itself to load_from_checkpoint or from_pretrained, as energy=Energy(...)."
    )
    if not isinstance(module, str) or not isinstance(name, str):
        return f"{told}import the module that registers it, or {given}"
    if module in sys.modules and hasattr(sys.modules[module], name):
        return f"{told}put @register (of {OWN}) above the class in {module}, or {given}"
    if module == "__main__":
        return f"{told}it is of a notebook or a script, whose class is to be run first, or {given}"
    return (
        f"{told}if you trust its module, add imports=[{module}] to the command, or write "
        f"`import {module}`, or {given}"
    )
