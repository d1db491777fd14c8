"""Checkpoints are files from outside: they are read without running any code in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparse_lightning.errors import CheckpointError

# To be raised with every change of what a checkpoint holds that older code cannot read.
FORMAT, FORMAT_KEY = 1, "sparse_lightning_format"


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The contents of a checkpoint of this package, read without unpickling code.

    Args:
        path: the file.
        map_location: as for ``torch.load``.

    Raises:
        CheckpointError: the file is missing, damaged, of another version, or something else.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"There is no checkpoint at {path}: check the path.")
    try:
        contents = torch.load(path, map_location=map_location, weights_only=True)
        family, _ = contents["hyper_parameters"]["family"], contents["state_dict"].items()
    except Exception as error:  # A damaged file may fail in any way.
        raise CheckpointError(
            f"{path} is not a checkpoint of sparse_lightning, or it is damaged "
            f"({type(error).__name__}): give a best.ckpt or last.ckpt that a run wrote."
        ) from error
    # The first checkpoints did not say.
    found = contents.get(FORMAT_KEY, 1)
    if found != FORMAT:
        raise CheckpointError(
            f"{path} is of another version of sparse_lightning (its format is {found}, this "
            f"version reads {FORMAT}): use the version that wrote it, or train again."
        )
    if not isinstance(family, str):
        raise CheckpointError(f"{path} names no family of model: give one that a run wrote.")
    return contents


def epochs_behind(contents: dict[str, Any]) -> int:
    """How many epochs a checkpoint has behind it, an unfinished one not counted."""
    return contents["epoch"] + (0 if is_inside_epoch(contents) else 1)


def is_inside_epoch(contents: dict[str, Any]) -> bool:
    """Whether a checkpoint was saved before its epoch had ended."""
    epochs = contents["loops"]["fit_loop"]["epoch_progress"]["current"]
    return epochs["started"] > epochs["processed"]
