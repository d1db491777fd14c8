"""The parts of a model as plain data, so that a checkpoint needs no pickled objects.

A part's constructor arguments are its attributes, by the same names (scikit-learn's convention).
`describe` reads them into a dictionary of numbers and strings; `build` makes the part again, from
this package's own classes only: a checkpoint cannot name other code to run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy
from sparse_lightning.errors import CheckpointError
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA, ISTA, Adaptive

CATALOGUE = {
    part.__name__: part
    for part in (
        LinearDecoder,
        MultiLayerDecoder,
        LISTA,
        UnitColumns,
        Energy,
        FISTA,
        ISTA,
        Adaptive,
        AdamSettings,
    )
}


def describe(part: Any) -> dict[str, Any] | None:
    """``{"name": class name, argument: value, ...}``; None stays None."""
    if part is None:
        return None
    arguments = inspect.signature(type(part)).parameters
    return {"name": type(part).__name__, **{name: getattr(part, name) for name in arguments}}


def build(part: Any) -> Any:
    """The part that a description (a mapping with a ``name``) stands for; others pass through.

    Raises:
        CheckpointError: a description of something that is not in the catalogue, or with
            settings that it does not have.
    """
    if not isinstance(part, Mapping):
        return part
    settings = dict(part)
    name = settings.pop("name", None)
    if name not in CATALOGUE:
        raise CheckpointError(
            f"The checkpoint holds a part named {name!r}, which is none of this package's "
            f"({', '.join(sorted(CATALOGUE))}): give the part itself as a keyword argument of "
            "load_from_checkpoint."
        )
    try:
        return CATALOGUE[name](**settings)
    except TypeError as error:
        raise CheckpointError(
            f"The checkpoint is of another version of sparse_lightning: its {name} has settings "
            f"that this version does not know ({error}). Use the version that wrote it."
        ) from error
