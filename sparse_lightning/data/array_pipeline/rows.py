"""Rows of one or several files as one long array, read from disk as they are asked for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

from sparse_lightning.data.array_pipeline.formats import (
    FORMATS,
    Choice,
    FileArray,
    open_array,
    rows_in_piece,
)
from sparse_lightning.data.cache import built_once, read_from, require_room
from sparse_lightning.data.npy_writer import write_npy
from sparse_lightning.errors import DataError, SettingError, first_line
from sparse_lightning.files import digest

KINDS = "biuf"  # of numpy: truth values, integers, floating-point numbers
BLOCK, BLOCKS = 65_536, 64


def files_of(setting: str, path: Path) -> list[Path]:
    """The files that a path stands for: itself, or the shards of a folder, sorted by name.

    Raises:
        SettingError: there is nothing, or nothing of a known format.
    """
    known = ", ".join(FORMATS)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_shard(p))
        deeper = ", ".join(_folders_of_shards(path))
        if not found:
            told = f"; its folders {deeper} do: name one of them" if deeper else ": check the path"
            raise SettingError(f"{setting}={path} holds no file of numbers ({known}){told}.")
        if deeper:
            warnings.warn(
                f"{setting}={path} has files of numbers in the folders {deeper}, which are not "
                "used: move them beside the others, or out of the folder.",
                stacklevel=2,
            )
        if broken := [p.name for p in found if not p.exists()]:
            raise DataError(
                f"{setting}={path} holds {broken[0]}, a link to a file that is not there: mend or "
                "remove it."
            )
        return found
    if not path.exists():
        raise SettingError(f"{setting}={path} does not exist: check the path.")
    if path.suffix.lower() not in FORMATS:
        raise SettingError(
            f"{setting}={path} is of no known format: give {known}, or a folder. "
            "pandas.read_csv(...).to_parquet(...) makes one of a table of text."
        )
    return [path]


def _is_shard(path: Path) -> bool:
    # No `is_file`, by which a link that is broken would be left out and nobody told.
    return path.suffix.lower() in FORMATS and not (path.name.startswith(".") or path.is_dir())


def _folders_of_shards(path: Path) -> list[str]:
    folders = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(folder.name for folder in folders if any(map(_is_shard, folder.iterdir())))


@contextmanager
def _reading(setting: str, path: Path) -> Iterator[None]:
    """Name the setting where the operating system refuses to read.

    Raises:
        DataError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{setting}={path} cannot be read ({error.strerror or first_line(error)}): allow "
            "reading, or check the path."
        ) from error


@dataclass(frozen=True)
class Source:
    """The arrays that a setting names, looked at and not yet read.

    Attributes:
        setting: its name, such as ``data.path``.
        path: its value.
        arrays: of its files, in order, each of the same shape but for the number of rows.
        choice: what to take of further files: of tables, columns of the names that these have.
    """

    setting: str
    path: Path
    arrays: Sequence[FileArray]
    choice: Choice

    @classmethod
    def open(cls, setting: str, path: Path, choice: Choice) -> Source:
        """Look at the files.

        Raises:
            SettingError, DataError: what cannot be rows of numbers.
        """
        with _reading(setting, path):
            return cls._open(setting, path, choice)

    @classmethod
    def _open(cls, setting: str, path: Path, choice: Choice) -> Source:
        arrays: list[FileArray] = []
        empty: list[FileArray] = []
        for file in files_of(setting, path):
            array = open_array(file, choice)
            if array.shape[:1] == (0,):
                empty.append(array)
                continue
            arrays.append(array)
            _require_rows(array)
            if choice.columns is None and array.columns is not None:
                # By place, features of a table with another order would change places.
                choice = replace(choice, columns=array.columns)
            if array.shape[1:] != arrays[0].shape[1:]:
                raise DataError(
                    f"{setting}={path} has rows of the shape {array.shape[1:]} in "
                    f"{array.path.name} and {arrays[0].shape[1:]} in {arrays[0].path.name}: give "
                    "files of equal rows."
                )
        if not arrays:
            _require_rows(empty[0])
        if empty:
            warnings.warn(
                f"{setting}={path}: {', '.join(array.path.name for array in empty)} without a row "
                "left out.",
                stacklevel=3,
            )
        return cls(setting, path, arrays, choice)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self.arrays[0].shape[1:]

    @property
    def count(self) -> int:
        """Rows of all files."""
        return sum(array.shape[0] for array in self.arrays)

    @property
    def dtype(self) -> np.dtype:
        """That holds the values of all files."""
        return np.result_type(*(array.dtype for array in self.arrays))

    def fingerprint(self) -> list:
        """What stands for the contents of each file: size, shape, type, and some of its bytes.

        A file of up to 4 MiB counts whole. Of a larger one 64 blocks of 64 KiB count, evenly
        spaced, the first and the last among them: a change between these does not show.
        """
        with _reading(self.setting, self.path):
            return [
                [list(a.shape), str(a.dtype), a.path.stat().st_size, _hash_of_blocks(a.path)]
                for a in self.arrays
            ]

    def rows(self, cache_dir: Path) -> Rows:
        """The rows, of converted copies where files cannot be mapped into memory."""
        with _reading(self.setting, self.path):
            return Rows([_mapped(array, cache_dir) for array in self.arrays])

    def place(self, row: int) -> str:
        """Where a row is, in words."""
        for array in self.arrays:
            if row < array.shape[0]:
                inside = f" of {array.path.name}" if len(self.arrays) > 1 else ""
                return f"row {row}{inside}"
            row -= array.shape[0]
        raise IndexError(row)


def _require_rows(array: FileArray) -> None:
    told = f"{array.path} holds an array of shape {array.shape} and type {array.dtype}"
    if array.dtype.kind not in KINDS:
        raise DataError(f"{told}: give integers or floating-point numbers, no {array.dtype}.")
    if len(array.shape) < 2:
        raise DataError(f"{told}, which has no rows: give (n, d), or (n, ...) of any rank.")
    if 0 in array.shape:
        raise DataError(f"{told}, which is empty: give at least one row and one column.")


def _hash_of_blocks(path: Path) -> str:
    size, content = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            content.update(file.read())
        else:
            for start in np.linspace(0, size - BLOCK, BLOCKS).astype(np.int64):
                file.seek(int(start))
                content.update(file.read(BLOCK))
    return content.hexdigest()[:20]


def _mapped(array: FileArray, cache_dir: Path) -> np.ndarray:
    """(rows, d), mapped into memory; converted once where the file itself cannot be."""
    mapped = array.mapped
    if mapped is None:
        status = array.path.stat()
        key = [str(array.path.resolve()), status.st_size, status.st_mtime_ns, list(array.shape)]
        key += [str(array.dtype), astuple(array.choice), _hash_of_blocks(array.path)]
        name = f"array-{digest(key)}"
        entry = built_once(cache_dir, name, lambda _, result: _convert(array, result))
        with read_from(entry):
            mapped = np.load(entry / "rows.npy", mmap_mode="r", allow_pickle=False)
        mapped = mapped.view(np.ndarray)
    return mapped.reshape(len(mapped), -1)


def _convert(array: FileArray, folder: Path) -> None:
    count = int(np.prod(array.shape, dtype=np.int64))
    require_room(folder, count * array.dtype.itemsize)
    written = write_npy(folder / "rows.npy", array.dtype, array.shape[1:], array.pieces())
    if written != array.shape[0]:
        raise DataError(
            f"{array.path} holds {written} rows, and says that it has {array.shape[0]}: save it "
            "again."
        )


class Rows:
    """Rows of arrays that are mapped into memory.

    Args:
        arrays: each (rows, d).
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        # What holds the values, and is fine enough to take a mean from them.
        self.dtype = np.result_type(np.float32, *(array.dtype for array in arrays))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """d."""
        return self.arrays[0].shape[1]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, d) by their numbers, in any order, as floating-point numbers.

        They are read in the order in which they lie on the disk.
        """
        order = np.argsort(rows, kind="stable")
        sorted_rows = np.asarray(rows)[order]
        gathered = np.empty((len(rows), self.width), self.dtype)
        bounds = np.searchsorted(sorted_rows, self.starts)
        for array, start, low, high in zip(self.arrays, self.starts, bounds, bounds[1:]):
            if high > low:
                gathered[order[low:high]] = array[sorted_rows[low:high] - start]
        return gathered

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in their order, some at a time: the number of the first, and (n, d)."""
        size = rows_in_piece(self.width * 8)
        for array, start in zip(self.arrays, self.starts):
            for first in range(0, len(array), size):
                piece = array[first : first + size].astype(self.dtype)
                yield int(start) + first, piece
