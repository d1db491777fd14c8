"""One value for each row that is no part of it, such as its group or its class.

A setting names a column of a table, an array of an archive, or an ``.npy`` file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet

from sparse_lightning.data.array_pipeline.formats import Choice, open_array
from sparse_lightning.data.array_pipeline.rows import Source
from sparse_lightning.errors import DataError, SettingError, first_line


def values_of_rows(setting: str, name: str, source: Source) -> np.ndarray:
    """Numbers or texts (n,), one for each row of a source.

    Args:
        setting: what names them, such as ``data.groups``.
        name: its value, an ``.npy`` file, or a column or key of each file of the source.
        source: the rows.

    Raises:
        SettingError: there is nothing of this name.
        DataError: it is not one value for each row, or values are missing.
    """
    told = f"{setting}={name}"
    if Path(name).is_file():
        values = _read_file(told, Path(name))
    else:
        values = np.concatenate([_read_column(told, a.path, name) for a in source.arrays])
    if values.shape != (source.count,):
        raise DataError(
            f"{told} has the shape {values.shape}, and {source.setting}={source.path} has "
            f"{source.count} rows: give one value for each row."
        )
    return values


def numbered(setting: str, values: list[np.ndarray]) -> list[np.ndarray]:
    """Classes by number, from 0, in place of their names or values.

    Args:
        setting: what names them, such as ``data.labels``, and its value.
        values: of the rows of each source, (n,).

    Returns:
        The number (n,) of each row's class in each source, int64, in the order of the classes.

    Raises:
        DataError: values that are no classes: fractions, a single one, or of two kinds.
    """
    for found in values:
        if found.dtype.kind == "f" and (found != np.round(found)).any():
            fraction = found[found != np.round(found)][0]
            raise DataError(
                f"{setting} has the value {fraction:g}, which is no class: give whole numbers or "
                "texts."
            )
    if len({found.dtype.kind in "US" for found in values}) > 1:
        raise DataError(
            f"{setting} has texts for one split, and numbers for another: give one kind."
        )
    classes, numbers = np.unique(np.concatenate(values), return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"{setting} has a single class, {classes[0]}: give two or more.")
    ends = np.cumsum([len(found) for found in values])[:-1]
    return np.split(numbers.astype(np.int64), ends)


def _read_column(told: str, path: Path, name: str) -> np.ndarray:
    """A column of a table, or an array of an archive."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        raise SettingError(f"{told} is no file, and {path} has no names: check the path.")
    if suffix == ".parquet":
        return _table_column(told, path, name)
    try:
        values = np.concatenate([*open_array(path, Choice(key=name)).pieces()])
    except SettingError as error:
        raise SettingError(
            f"{told} is no file, and no key of {path}: give an .npy file, or a key that is there."
        ) from error
    if values.ndim != 1:
        raise DataError(
            f"{told} is no file, and has the shape {values.shape} in {path}: give one value for "
            "each row."
        )
    _require_present(f"{told} in {path}", _is_nan(values))
    return values


def _table_column(told: str, path: Path, name: str) -> np.ndarray:
    names = pyarrow.parquet.read_schema(path).names
    if name not in names:
        raise SettingError(
            f"{told} is no file, and no column of {path}: its columns are {', '.join(names)}."
        )
    column = pyarrow.parquet.read_table(path, columns=[name]).column(0)
    missing = pyarrow.compute.is_null(column, nan_is_null=True).to_numpy()
    _require_present(f"{told} in {path}", missing)
    values = column.to_numpy()
    if values.dtype == object:
        values = values.astype(str)
    return values


def _read_file(told: str, path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # A damaged file may fail in any way.
        raise DataError(
            f"{told} cannot be read as .npy ({first_line(error)}): write one value for each row "
            "by numpy.save, without Python objects."
        ) from error
    _require_present(told, _is_nan(values))
    return values


def _is_nan(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _require_present(told: str, missing: np.ndarray) -> None:
    """Raise `DataError` where rows have no value: together they would be one group, or class."""
    if missing.any():
        raise DataError(
            f"{told} has missing values, the first in row {int(missing.argmax())}: give each row "
            "one, or leave these rows out."
        )
