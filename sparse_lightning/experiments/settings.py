"""Settings have the kinds that their places want, before anything is made of them.

A command line knows no types: ``1e3`` is a float where a count belongs, ``'64'`` a text where a
list belongs. What each place wants is read from the signature of what is made there, and for
settings at the top from a table. A float that is whole is taken for the whole number; anything else
of a wrong kind is refused by name.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from sparse_lightning.errors import SettingError

# Of settings that others are taken from, and the least value of each.
AT_THE_TOP: dict[str, tuple[Any, float]] = {
    "seed": (int | None, 0),
    "code_dim": (int | None, 1),
    "hidden_dim": (int, 1),
    "step_size": (float, -math.inf),
    "encoder_learning_rate": (float, -math.inf),
    "max_epochs": (int | None, -1),
    "sparsity_weights": (list[float] | None, -math.inf),
    "active_counts": (list[int] | None, -math.inf),
    "sparsity_level": (int | None, -math.inf),
    "target_zeros": (float | None, -math.inf),
    "zeros_targets": (list[float], -math.inf),
}
# From here on they may follow from the data, which are converted before.
FIRST_OF_DATA = "code_dim"
HINTS = {"hidden_dim": " For several layers set model.decoder.hidden_dims=[...]."}
MOST_SEED = 2**32 - 1
LIST_TYPES = (list, tuple, collections.abc.Sequence)


class _WrongKindError(Exception):
    """What a place wants instead, in words."""


def convert_settings(config: DictConfig) -> None:
    """Turn whole floats into whole numbers where these belong, in place.

    Args:
        config: of a training, resolved or not.

    Raises:
        SettingError: a setting is of a wrong kind, or one at the top is out of range.
    """
    convert_top_level(config)
    with read_write(config), open_dict(config):
        if (model := _part(config, "model")) is not None:
            _fill_input_dims(model)
        # What the model takes from it is told by its own name.
        for name in sorted(config, key=lambda name: name == "model"):
            if (part := _part(config, name)) is not None:
                _convert_arguments(part, str(name))


def convert_top_level(config: DictConfig) -> None:
    """`convert_settings` of those at the top alone.

    Nothing is imported for it, unless the data are of a size of their own, from which other
    settings may follow.
    """
    with read_write(config), open_dict(config):
        for name, (kind, least) in AT_THE_TOP.items():
            if name == FIRST_OF_DATA and _have_own_size(_part(config, "data")):
                _convert_arguments(config.data, "data")
            if name in config:
                value = _convert(config, name, name, kind)
                if isinstance(value, int | float) and value < least:
                    raise SettingError(f"{name}={value} must be at least {least:g}.")
        if config.get("seed") is not None and config.seed > MOST_SEED:
            raise SettingError(f"seed={config.seed} must be at most {MOST_SEED}.")


def convert_data(data: DictConfig) -> None:
    """`convert_settings` of those of data alone."""
    with read_write(data), open_dict(data):
        _convert_arguments(data, "data")


def known_image_shape(data: DictConfig | None) -> tuple[int, int] | None:
    """The shape of an image, where settings of data tell it without the import of torch."""
    target = None if data is None else data.get("_target_")
    if target == "sparse_lightning.data.mnist.MNIST":
        return 28, 28
    if target == "sparse_lightning.data.patches.ImagePatches":
        return data.patch_size, data.patch_size
    return None


def known_input_dim(data: DictConfig | None) -> int | None:
    """The size of an input, where settings of this package's data tell it without torch."""
    if data is None or not str(data.get("_target_")).startswith("sparse_lightning."):
        return None
    shape = known_image_shape(data)
    return data.get("input_dim", None if shape is None else math.prod(shape))


def _have_own_size(data: DictConfig | ListConfig | None) -> bool:
    return data is not None and known_image_shape(data) is None


def _fill_input_dims(node: DictConfig | ListConfig) -> None:
    """Give every part of a model whose ``input_dim`` is null that of the data."""
    if isinstance(node, DictConfig) and "input_dim" in node and node.input_dim is None:
        node.input_dim = "${input_dim:}"
    for _, child in _children(node):
        _fill_input_dims(child)


def _convert_arguments(node: DictConfig | ListConfig, prefix: str) -> None:
    """Convert the arguments of everything that is made at or below a node."""
    if isinstance(node, DictConfig):
        kinds = _argument_kinds(node.get("_target_"))
        for name in list(node):
            if not OmegaConf.is_missing(node, name) and name in kinds:
                _convert(node, name, f"{prefix}.{name}", kinds[name])
    for name, child in _children(node):
        _convert_arguments(child, f"{prefix}.{name}")


def _children(node: DictConfig | ListConfig) -> Iterator[tuple[Any, DictConfig | ListConfig]]:
    """Nodes below, by their keys."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if (child := _part(node, key)) is not None:
            yield key, child


def _part(node: DictConfig | ListConfig, key: Any) -> DictConfig | ListConfig | None:
    """The node at a key; None for a value, and for what stands elsewhere and is referred to."""
    if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
        return None
    child = node.get(key)
    return child if OmegaConf.is_config(child) else None


def _argument_kinds(target: Any) -> Mapping[str, Any]:
    """The annotation of each argument; none where they cannot be told."""
    if not isinstance(target, str):
        return {}
    try:
        made = get_object(target)
        function = made.__init__ if inspect.isclass(made) else made
        return typing.get_type_hints(function)
    except Exception:  # What is wrong with it shows when it is made.
        return {}


def _convert(parent: DictConfig, key: str, name: str, kind: Any) -> Any:
    """Give a setting its kind, and return it."""
    value = parent[key]
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    try:
        converted = _as_kind(plain, kind)
    except _WrongKindError as wanted:
        text = ", not text" if isinstance(plain, str) else ""
        raise SettingError(f"{name}={plain} must be {wanted}{text}.{HINTS.get(name, '')}") from None
    # An interpolation stays one.
    if repr(converted) != repr(plain):
        parent[key] = converted
    return converted


def _as_kind(value: Any, kind: Any) -> Any:
    """The value as this annotation has it; annotations of other than plain kinds take all.

    Raises:
        _WrongKindError: the value is of another kind.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _as_one_of(value, typing.get_args(kind))
    if kind in PLAIN:
        return PLAIN[kind](value)
    if origin in LIST_TYPES:
        return _as_list(value, *typing.get_args(kind))
    return value


def _as_one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    # 1.0 is all batches, and 1 is one.
    if type(value) in kinds:
        return value
    wanted = []
    for kind in kinds:
        if kind is type(None):
            if value is None:
                return None
            wanted.append("null")
            continue
        try:
            return _as_kind(value, kind)
        except _WrongKindError as error:
            wanted.append(str(error))
    raise _WrongKindError(" or ".join(dict.fromkeys(wanted)))


def _as_list(value: Any, *kinds: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _WrongKindError(f"a list, as in {'[a,b]' if kinds[:1] == (str,) else '[64,32]'}")
    if not kinds or (len(kinds) > 1 and kinds[1] is not Ellipsis):
        return value
    try:
        return [_as_kind(item, kinds[0]) for item in value]
    except _WrongKindError as error:
        raise _WrongKindError(f"a list whose items are each {error}") from None


def _as_whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongKindError("a whole number")
    return value


def _as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongKindError("a number")
    return value


def _as_truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongKindError("true or false")
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, list | dict):
        raise _WrongKindError("a text")
    return value


PLAIN = {int: _as_whole, float: _as_number, bool: _as_truth, str: _as_text}
