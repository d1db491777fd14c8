"""The numbers in the columns of a Parquet file, in pieces."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from sparse_lightning.errors import DataError, SettingError

MOST_TOLD = 10  # columns in a message
# What pandas calls the numbers of rows, where it writes them as a column.
INDEX = "__index_level_"


class Columns(NamedTuple):
    """The array (n, d) of some columns.

    Attributes:
        shape: (n, d).
        dtype: of the values.
        names: of the columns, in order.
        left_out: columns without numbers, where none were asked for by name.
        pieces: gives the array in pieces of rows.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    pieces: Callable[[], Iterator[np.ndarray]]


def read_columns(
    path: Path,
    columns: Sequence[str] | None,
    beside: Sequence[str],
    rows_in_piece: Callable[[int], int],
) -> Columns:
    """Columns of numbers, or of lists of numbers that are equally long, side by side.

    Args:
        path: the file.
        columns: which; None for all that have numbers.
        beside: columns that are none of them.
        rows_in_piece: how many rows are read at a time, given the bytes of a row.

    Raises:
        SettingError: a column that is missing or has no numbers.
        DataError: missing values, or lists of different lengths, when pieces are read.
    """
    file = pyarrow.parquet.ParquetFile(path)
    types = {field.name: _of_known_size(file, field) for field in file.schema_arrow}
    left_out = []
    if columns is None:
        no_data = {*beside, *_index_of(file.schema_arrow)}
        names = [name for name in types if name not in no_data and not name.startswith(INDEX)]
        columns = _columns_of_numbers(path, {name: types[name] for name in names})
        left_out = [name for name in names if name not in columns]
    # A column that is named twice is read once.
    columns = list(dict.fromkeys(columns))
    _require_numbers(path, columns, types)
    width = sum(_width(types[name]) for name in columns)
    dtype = np.result_type(*(_value_type(types[name]).to_pandas_dtype() for name in columns))
    rows = rows_in_piece(width * dtype.itemsize)
    read = partial(_pieces, path, {name: types[name] for name in columns}, dtype, rows)
    shape = (file.metadata.num_rows, width)
    return Columns(shape, dtype, tuple(columns), tuple(left_out), read)


def _require_numbers(
    path: Path, columns: Sequence[str], types: dict[str, pyarrow.DataType]
) -> None:
    """Raise `SettingError` unless there are columns, and all of them are there and have numbers."""
    missing = [name for name in columns if name not in types]
    wrong = [name for name in columns if name not in missing and _width(types[name]) is None]
    if missing or wrong or not columns:
        told, nearest = "it has no column of numbers", []
        if missing:
            told = f"{missing[0]} is missing"
            nearest = difflib.get_close_matches(missing[0], types, MOST_TOLD)
        elif wrong:
            told = f"{wrong[0]} has no numbers"
        names, others = nearest or list(types), ""
        if len(names) > MOST_TOLD:
            others = f", and {len(names) - MOST_TOLD} others"
        known = ", ".join(f"{name} ({types[name]})" for name in names[:MOST_TOLD])
        raise SettingError(
            f"data.columns={list(columns)} do not fit {path} ({told}): "
            f"{'the nearest' if nearest else 'its columns'} are {known}{others}."
        )


def _columns_of_numbers(path: Path, types: dict[str, pyarrow.DataType]) -> list[str]:
    decimals = [name for name in types if pyarrow.types.is_decimal(_innermost(types[name]))]
    if decimals:
        raise SettingError(
            f"{path} has decimals in the column {decimals[0]} ({types[decimals[0]]}): write it as "
            "floating-point numbers, or set data.columns to the columns to use."
        )
    columns = [name for name in types if _width(types[name]) is not None]
    nested = [name for name in types if name not in columns and _holds_numbers(types[name])]
    if nested:
        raise SettingError(
            f"{path} has numbers in the column {nested[0]} that are lists of lists "
            f"({types[nested[0]]}): write it as lists of one length, or set data.columns to the "
            "columns to use."
        )
    return columns


def _index_of(schema: pyarrow.Schema) -> list[str]:
    """Columns that pandas wrote for the names of rows, and not as data."""
    indices = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in indices if isinstance(name, str)]


def _of_known_size(file: pyarrow.parquet.ParquetFile, field: pyarrow.Field) -> pyarrow.DataType:
    """The type of a column; where its rows are lists of numbers, of the length of the first."""
    kind = field.type
    if not _is_list(kind) or not _is_number(kind.value_type):
        return kind
    first = next(file.iter_batches(1, columns=[field.name]), None)
    values = None if first is None else first.column(0)[0].as_py()
    return pyarrow.list_(kind.value_type, len(values or []))


def _is_list(kind: pyarrow.DataType) -> bool:
    """Whether a column's rows are lists, whose lengths its type does not tell."""
    return pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)


def _is_number(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _holds_numbers(kind: pyarrow.DataType) -> bool:
    return _is_number(_innermost(kind))


def _innermost(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type of the values of a column, in however many lists they are."""
    while _is_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _value_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    return kind.value_type if pyarrow.types.is_fixed_size_list(kind) else kind


def _width(kind: pyarrow.DataType) -> int | None:
    """Values in a row of a column, None where they are no numbers."""
    if not _is_number(_value_type(kind)):
        return None
    return kind.list_size if pyarrow.types.is_fixed_size_list(kind) else 1


def _pieces(
    path: Path, types: dict[str, pyarrow.DataType], dtype: np.dtype, rows_in_piece: int
) -> Iterator[np.ndarray]:
    file, done = pyarrow.parquet.ParquetFile(path), 0
    for batch in file.iter_batches(rows_in_piece, columns=list(types)):
        parts = [_values(path, name, batch.column(name), types[name], done) for name in types]
        done += len(batch)
        yield np.concatenate(parts, axis=1).astype(dtype, copy=False)


def _values(
    path: Path, name: str, column: pyarrow.Array, kind: pyarrow.DataType, done: int
) -> np.ndarray:
    """Values (rows, width) of a piece of a column, whose first row is number ``done``."""
    rows = len(column)
    _require_present(path, name, column, done)
    if pyarrow.types.is_fixed_size_list(kind):
        lengths = pyarrow.compute.list_value_length(column).to_numpy()
        if (wrong := lengths != kind.list_size).any():
            row = int(wrong.argmax())
            raise DataError(
                f"{path} has in column {name} a list of {kind.list_size} numbers in row 0, and "
                f"one of {lengths[row]} in row {done + row}: make all lists of one length, or "
                "leave the column out (data.columns)."
            )
        column = column.flatten()
        _require_present(path, name, column, done, kind.list_size)
    return column.to_numpy(zero_copy_only=False).reshape(rows, -1)


def _require_present(
    path: Path, name: str, values: pyarrow.Array, done: int, width: int = 1
) -> None:
    """Raise `DataError` where some of the values are missing, of which a row has ``width``."""
    if values.null_count:
        first = int(values.is_null().to_numpy(zero_copy_only=False).argmax())
        raise DataError(
            f"{path} has missing values in column {name}, the first in row "
            f"{done + first // width}: fill them in, or leave the rows or the column out "
            "(data.columns)."
        )
