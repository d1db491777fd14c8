"""One array of each file, whatever the format, without running any code in it.

``.npy`` and ``.safetensors`` are mapped into memory, and so are the tensors of ``.pt`` files: their
pages belong to the page cache, and take no memory of the process. Arrays that cannot be mapped
(``.npz``, ``.parquet``, columns first, bfloat16) are read in pieces, which are kept in a cache.
"""

from __future__ import annotations

import json
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import set_default_mmap_options

from sparse_lightning.data.array_pipeline.parquet import read_columns
from sparse_lightning.errors import DataError, SettingError, first_line

# Of one array alone, and of columns.
WITHOUT_NAMES = (".npy", ".parquet")
# Arrays that are in every file of scipy.sparse.save_npz.
SCIPY = {"format", "shape", "data"}
BYTES_IN_PIECE = 2**25
SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "BF16": "<u2",
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What to take of a file that holds several things.

    Args:
        key: name of the array; None where there is one.
        columns: of a Parquet file; None for all columns of numbers.
        beside: names of what is known of each row and is no part of it, such as its group.
    """

    key: str | None = None
    columns: Sequence[str] | None = None
    beside: Sequence[str] = ()


@dataclass(frozen=True)
class FileArray:
    """The array of one file.

    Args:
        path: the file.
        shape: of the array, rows first.
        dtype: of its values.
        mapped: the array itself, mapped into memory; None where it has to be converted.
        pieces: gives the array in pieces of some rows, in order; what is converted.
        columns: names of its columns, of a table.
        left_out: names of columns without numbers, unless columns were asked for by name.
        choice: what was taken of the file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    mapped: np.ndarray | None
    pieces: Callable[[], Iterator[np.ndarray]]
    columns: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    choice: Choice = Choice()


def open_array(path: Path, choice: Choice) -> FileArray:
    """The array of a file, without reading its values.

    Args:
        path: a file whose suffix is one of `FORMATS`.
        choice: what to take of it.

    Raises:
        SettingError: a key or columns that are not in the file.
        DataError: a file that is damaged, or is not what its suffix says; also from its pieces.
    """
    with _readable(path):
        array: FileArray = FORMATS[path.suffix.lower()](path, choice)

    def pieces() -> Iterator[np.ndarray]:
        with _readable(path):
            yield from array.pieces()

    return replace(array, pieces=pieces, choice=choice)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Make one sentence of what the readers raise."""
    try:
        yield
    except (SettingError, DataError, MemoryError):
        raise
    except Exception as error:  # A damaged file may fail in any way.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{path} cannot be read ({os.strerror(error.errno)}): allow reading, or let "
                "data.path name other files."
            ) from error
        size = path.stat().st_size if path.is_file() else 0
        reason = "is empty" if size == 0 else f"cannot be read as {path.suffix}"
        raise DataError(
            f"{path} {reason} ({type(error).__name__}: {first_line(error)}): give a whole file "
            "of numbers, without Python objects in it."
        ) from error


def rows_in_piece(bytes_of_row: int) -> int:
    """How many rows are converted at a time: as many as a piece has room for."""
    return max(1, BYTES_IN_PIECE // max(1, bytes_of_row))


def require_names(arrays: Sequence[FileArray], key: str | None) -> None:
    """Raise `SettingError` where a key is given for files that have no names."""
    nameless = [a.path for a in arrays if a.path.suffix.lower() in WITHOUT_NAMES]
    if key is not None and len(nameless) == len(arrays):
        raise SettingError(_without_names(nameless[0], key))


def _without_names(path: Path, key: str) -> str:
    return (
        f"data.key={key} names an array of a file that holds several, and {path} has no names: "
        "leave data.key out."
    )


def _npy(path: Path, choice: Choice) -> FileArray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    # A plain view, because each slice of a memmap is a slow object of its own.
    return _of_array(path, array.view(np.ndarray))


def _of_array(path: Path, array: np.ndarray) -> FileArray:
    def pieces() -> Iterator[np.ndarray]:
        rows = rows_in_piece(array.nbytes // max(1, len(array)))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows])

    # Rows of an array that has its columns first are scattered over the whole file.
    mapped = array if array.flags.c_contiguous else None
    return FileArray(path, array.shape, array.dtype, mapped, pieces)


def _npz(path: Path, choice: Choice) -> FileArray:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if set(names) >= SCIPY:
            raise DataError(
                f"{path} holds a sparse matrix of scipy: save its .toarray() by numpy.save."
            )
        chosen = _the_key(path, choice, names)
        with archive.open(f"{chosen}.npy") as member:
            shape, is_fortran, dtype = _npy_header(member)
    if is_fortran and len(shape) > 1:
        # Such an array is read whole: its rows are scattered over all of it.
        return FileArray(path, shape, dtype, None, lambda: iter([np.load(path)[chosen]]))
    return FileArray(path, shape, dtype, None, partial(_npz_pieces, path, chosen))


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    return read[version](file)


def _npz_pieces(path: Path, key: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
        shape, _, dtype = _npy_header(member)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        most = rows_in_piece(size)
        for start in range(0, shape[0], most):
            rows = min(most, shape[0] - start)
            content = member.read(rows * size)
            yield np.frombuffer(content, dtype).reshape(rows, *shape[1:])


def _the_key(path: Path, choice: Choice, names: Sequence[str]) -> str:
    key = choice.key
    if key in names:
        return key
    names = [name for name in names if name not in choice.beside]
    if key is None and len(names) == 1:
        return names[0]
    given = "is not given" if key is None else f"{key} is not among them"
    raise SettingError(
        f"{path} holds {len(names)} arrays ({', '.join(names)}), and data.key {given}: set "
        "data.key to the one to use."
    )


def _pt(path: Path, choice: Choice) -> FileArray:
    content = _loaded(path)
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = tensors[_the_key(path, choice, list(tensors))]
    elif choice.key is not None:
        raise SettingError(_without_names(path, choice.key))
    if not isinstance(content, Tensor):
        raise DataError(
            f"{path} holds a {type(content).__name__}, not a tensor or a dictionary of tensors: "
            "save one of these."
        )
    content = content.detach()
    if content.dtype is not torch.bfloat16:
        array = content.numpy()
        array.flags.writeable = False  # What is written to a shared mapping goes into the file.
        return _of_array(path, array)

    def pieces() -> Iterator[np.ndarray]:
        rows = rows_in_piece(4 * content[:1].numel())
        return (piece.float().numpy() for piece in content.split(rows))

    return FileArray(path, tuple(content.shape), np.dtype(np.float32), None, pieces)


def _loaded(path: Path) -> Any:
    """What a file of torch holds, mapped into memory where that can be."""
    # Linux refuses a private mapping that is larger than the memory. A shared one needs a file that
    # may be written. Files of old versions of torch cannot be mapped.
    for kind in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        with suppress(RuntimeError, OSError), set_default_mmap_options(kind):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path, choice: Choice) -> FileArray:
    """By the format itself: 8 bytes of length, a header in JSON, and the values."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(path.stat().st_size - 8, 100_000_000):
            raise DataError(f"{path} is no safetensors file, or is cut short: save it again.")
        header = json.loads(file.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    entry = tensors[_the_key(path, choice, list(tensors))]
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if kind not in SAFETENSORS_TYPES:
        raise DataError(f"{path} has values of type {kind}: convert them to float32.")
    array = np.memmap(path, SAFETENSORS_TYPES[kind], "r", 8 + length + start, shape).view(
        np.ndarray
    )
    if array.nbytes != end - start:
        raise DataError(f"{path} is damaged (its header contradicts itself): save it again.")
    if kind != "BF16":
        return _of_array(path, array)

    def pieces() -> Iterator[np.ndarray]:
        # A bfloat16 is the upper half of a float32.
        rows = rows_in_piece(4 * array[:1].size)
        for first in range(0, len(array), rows):
            yield (array[first : first + rows].astype(np.uint32) << 16).view(np.float32)

    return FileArray(path, shape, np.dtype(np.float32), None, pieces)


def _parquet(path: Path, choice: Choice) -> FileArray:
    table = read_columns(path, choice.columns, choice.beside, rows_in_piece)
    return FileArray(
        path, table.shape, table.dtype, None, table.pieces, table.names, table.left_out
    )


FORMATS: dict[str, Callable[..., FileArray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".pth": _pt,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}
