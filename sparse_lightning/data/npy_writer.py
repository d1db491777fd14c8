"""An .npy file that is written piece by piece, before anybody knows how many rows there will be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_npy(
    path: Path, dtype: np.dtype, row_shape: tuple[int, ...], pieces: Iterable[np.ndarray]
) -> int:
    """Write rows in their order, and see them onto the disk.

    Args:
        path: the file.
        dtype: of the values.
        row_shape: shape of a row, () for records.
        pieces: of some rows each.

    Returns:
        How many rows were written, rounded down.
    """
    size, dtype = 0, np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (0, *row_shape)})
        start = file.tell()
        for piece in pieces:
            np.ascontiguousarray(piece, dtype).tofile(file)
            size += piece.size
        rows = size // int(np.prod(row_shape, dtype=np.int64))
        # Over the first header: numpy pads headers for a number of rows of any length.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *row_shape)})
        assert file.tell() == start
        file.flush()
        os.fsync(file.fileno())
    return rows
