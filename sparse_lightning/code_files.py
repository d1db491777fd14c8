"""Codes of a data set on disk, in shards.

A folder has ``codes.json``, which says of what the codes are, and for each split files such as
``test-00000-of-00004.npz``. A shard holds consecutive samples, in the order of the split, and is
written whole or not at all: work that was interrupted goes on with the shards that are missing.
``test-rows.npy`` has, for each sample of the split, the number of its row in the file of the data.

Sparse codes are in compressed rows (CSR), as scipy has them: active components (``data``), their
indices (``indices``), and where each row begins (``indptr``). ``scipy.sparse.load_npz`` reads a
sparse ``.npz``. Dense codes are one array, ``codes``.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
import scipy.sparse

from sparse_lightning.errors import DataError, SettingError
from sparse_lightning.files import replaced_whole, write_json

ABOUT_FILE = "codes.json"
LAYOUTS, FORMATS = ("sparse", "dense"), ("npz", "safetensors")
Codes: TypeAlias = np.ndarray | scipy.sparse.csr_array


@dataclass(frozen=True)
class CodeFiles:
    """The shards of a folder.

    Args:
        folder: where they are.
        about: ``layout`` (sparse or dense), ``format`` (npz or safetensors), ``shard_size``,
            ``code_dim``, ``counts`` (samples by split), and what else makes the codes what they
            are.
    """

    folder: Path
    about: dict[str, Any]

    def begin(self) -> None:
        """Say of what the codes are, or check that the folder's codes are of that.

        Raises:
            SettingError: the folder holds codes of something else.
        """
        path = self.folder / ABOUT_FILE
        if not path.exists():
            write_json(path, self.about)
            return
        theirs = _read_about(self.folder)
        names = sorted(
            name for name in theirs.keys() | self.about if theirs.get(name) != self.about.get(name)
        )
        if names:
            told = ", ".join(f"{name} {theirs.get(name)}" for name in names)
            raise SettingError(
                f"output={self.folder} holds codes of something else ({told}): choose another "
                "folder, or the settings that they were made with."
            )

    def rows(self, split: str) -> Path:
        """Where the numbers of a split's rows are."""
        return self.folder / f"{split}-rows.npy"

    def write_rows(self, split: str, numbers: np.ndarray) -> None:
        """Write which row of the data's file each sample of a split is, (n,)."""
        with replaced_whole(self.rows(split)) as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(numbers, dtype=np.int64))

    def shards(self, split: str) -> list[tuple[Path, range]]:
        """The path of each shard of a split, and the rows that it holds."""
        count, size = self.about["counts"][split], self.about["shard_size"]
        number = math.ceil(count / size)
        suffix = self.about["format"]
        return [
            (
                self.folder / f"{split}-{k:05d}-of-{number:05d}.{suffix}",
                range(k * size, min((k + 1) * size, count)),
            )
            for k in range(number)
        ]

    def missing(self, split: str) -> list[tuple[Path, range]]:
        """Those of `shards` that are not there."""
        return [(path, rows) for path, rows in self.shards(split) if not path.exists()]

    def write(self, path: Path, codes: np.ndarray) -> None:
        """Write the codes (n, l) of one shard, whole or not at all."""
        is_sparse, is_npz = self.about["layout"] == "sparse", self.about["format"] == "npz"
        rows = scipy.sparse.csr_array(codes) if is_sparse else None
        with replaced_whole(path) as temporary:
            if rows is not None and is_npz:
                scipy.sparse.save_npz(temporary, rows)
            elif rows is not None:
                arrays = {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr}
                shape = np.array(rows.shape)
                safetensors.numpy.save_file(arrays | {"shape": shape}, temporary)
            elif is_npz:
                np.savez_compressed(temporary, codes=codes)
            else:
                safetensors.numpy.save_file({"codes": np.ascontiguousarray(codes)}, temporary)


def read_codes(folder: str | Path, split: str) -> Codes:
    """The codes (n, l) of a split: a ``csr_array`` where they are sparse, else an array.

    Raises:
        DataError: shards are missing or damaged, or there are none of this split.
    """
    about = _read_about(Path(folder))
    files = CodeFiles(Path(folder), about)
    if split not in about["counts"]:
        known = ", ".join(about["counts"])
        raise DataError(f"{folder} holds no codes of split {split!r}: it has {known}.")
    if missing := files.missing(split):
        raise DataError(
            f"{missing[0][0]} is missing, with {len(missing) - 1} other shards: the command that "
            "wrote the others, given again, writes it."
        )
    width, layout = about["code_dim"], about["layout"]
    parts = [_checked(path, layout, (len(rows), width)) for path, rows in files.shards(split)]
    if layout == "dense":
        return np.concatenate(parts)
    return scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr"))


def read_rows(folder: str | Path, split: str) -> np.ndarray:
    """Which row of the data's file each code of `read_codes` is of, (n,).

    Raises:
        DataError: the codes are of data that are no rows of a file, or the file is damaged.
    """
    path = CodeFiles(Path(folder), _read_about(Path(folder))).rows(split)
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # A damaged file may fail in any way.
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): only codes of data that are rows of "
            "a file, as data=arrays and the training digits of data=mnist are, have it."
        ) from error


def _read(path: Path, layout: str) -> Codes:
    """The codes of a shard, sparse ones with every index within the row."""
    content = path.read_bytes()  # numpy leaves a damaged file open.
    if path.suffix == ".npz":
        arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
    else:
        arrays = safetensors.numpy.load(content)
    if layout == "dense":
        return arrays["codes"]
    parts = tuple(arrays[name] for name in ("data", "indices", "indptr"))
    rows = scipy.sparse.csr_array(parts, shape=tuple(map(int, arrays["shape"])))
    rows.check_format(full_check=True)
    return rows


def _checked(path: Path, layout: str, shape: tuple[int, int]) -> Codes:
    """A shard of this shape."""
    try:
        codes = _read(path, layout)
        if codes.shape != shape:
            raise ValueError(f"its shape is {codes.shape}, not {shape}")
    except Exception as error:  # A damaged file may fail in any way.
        raise DataError(
            f"{path} is damaged ({error}): delete it and give the command that wrote it again."
        ) from error
    return codes


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        known = about["layout"] in LAYOUTS and about["format"] in FORMATS
        counts = [about["code_dim"], about["shard_size"], *about["counts"].values()]
        known = known and all(type(count) is int and count > 0 for count in counts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): give a folder that "
            "sparse_lightning.encode wrote."
        ) from error
    if not known:
        raise DataError(f"{path} says nothing of codes that this version can read.")
    return about
