"""Which group each row is of: a column of a table, an array of an archive, or a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet

from sparse_lightning.data.array_pipeline.formats import Choice, first_line, open_array
from sparse_lightning.errors import DataError, SettingError


def read_column(path: Path, name: str) -> np.ndarray:
    """One value for each row, numbers or texts: a column of a table, or an array of an archive.

    Raises:
        SettingError: the file has none of this name.
        DataError: it is not one value for each row.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        raise SettingError(
            f"data.groups={name} is no file, and {path} has no names: check the path."
        )
    if suffix == ".parquet":
        return _table_column(path, name)
    try:
        values = np.concatenate([*open_array(path, Choice(key=name)).pieces()])
    except SettingError as error:
        raise SettingError(
            f"data.groups={name} is no file, and no key of {path}: give an .npy file, or a key "
            "that is there."
        ) from error
    if values.ndim != 1:
        raise DataError(
            f"data.groups={name} is no file, and has the shape {values.shape} in {path}: give one "
            "value for each row."
        )
    _require_groups(f"data.groups={name} in {path}", _is_nan(values))
    return values


def _table_column(path: Path, name: str) -> np.ndarray:
    names = pyarrow.parquet.read_schema(path).names
    if name not in names:
        raise SettingError(
            f"data.groups={name} is no file, and no column of {path}: its columns are "
            f"{', '.join(names)}."
        )
    column = pyarrow.parquet.read_table(path, columns=[name]).column(0)
    missing = pyarrow.compute.is_null(column, nan_is_null=True).to_numpy()
    _require_groups(f"data.groups={name} in {path}", missing)
    values = column.to_numpy()
    if values.dtype == object:
        values = values.astype(str)
    return values


def read_file(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file that says which group each row is of.

    Raises:
        DataError: it is no such file, or values are missing.
    """
    try:
        with path.open("rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # A damaged file may fail in any way.
        raise DataError(
            f"data.groups={path} cannot be read as .npy ({first_line(error)}): write one value "
            "for each row by numpy.save, without Python objects."
        ) from error
    _require_groups(f"data.groups={path}", _is_nan(values))
    return values


def _is_nan(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _require_groups(told: str, missing: np.ndarray) -> None:
    """Raise `DataError` where rows have no group: together they would be one."""
    if missing.any():
        raise DataError(
            f"{told} has missing values, the first in row {int(missing.argmax())}: give each row "
            "a group, or leave these rows out."
        )
