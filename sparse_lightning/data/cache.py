"""A folder that is built once, whole or not at all, however many processes ask for it.

A cache entry is named by a digest of everything that shapes it. It is built in a hidden folder
beside it, which takes its name at the end; what an interrupted build left in the hidden folder is
there for the next one to go on with. The builder holds a lock of the operating system, which ends
with the process that holds it, however that ends.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparse_lightning.errors import DataError, SettingError


def built_once(cache_dir: Path, key: str, build: Callable[[Path, Path], None]) -> Path:
    """The folder ``cache_dir/key``, built now if it is not there.

    Args:
        cache_dir: where entries are kept.
        key: what the entry is called.
        build: given a folder that outlives an interruption, for work in progress, and an empty
            folder that becomes the entry.

    Raises:
        DataError: a cache that cannot be written, or whose disk is full.
    """
    entry = cache_dir / key
    if entry.is_dir():
        return entry
    with cache_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f".{key}.lock"):
            if not entry.is_dir():
                _build(cache_dir, key, build)
    return entry


def _build(cache_dir: Path, key: str, build: Callable[[Path, Path], None]) -> None:
    partial = cache_dir / f".{key}.partial"
    progress, result = partial / "progress", partial / "result"
    progress.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir()
    try:
        build(progress, result)
        os.replace(result, cache_dir / key)
    except BaseException:
        shutil.rmtree(result, ignore_errors=True)
        raise
    shutil.rmtree(partial)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"Waiting for another process, which builds {path.parent} now ...", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def cache_errors(cache_dir: Path) -> Iterator[None]:
    """Say in one sentence what the operating system refuses to write."""
    try:
        yield
    except OSError as error:
        # numpy's own errors have no code: a file took fewer bytes than it was given.
        reason = error.strerror or os.strerror(errno.ENOSPC)
        if error.errno == errno.ENAMETOOLONG:
            raise SettingError(
                f"data.cache_dir={cache_dir} cannot be made ({reason}): choose a shorter name."
            ) from error
        raise DataError(
            f"data.cache_dir={cache_dir} cannot be written ({reason}): make room, or set "
            "data.cache_dir to a folder that can."
        ) from error


@contextmanager
def read_from(entry: Path) -> Iterator[None]:
    """Say in one sentence that what is read from an entry is damaged.

    Raises:
        DataError: in place of what readers of numpy's files raise.
    """
    try:
        yield
    except Exception as error:  # A damaged file may fail in any way.
        raise DataError(
            f"{entry} is damaged ({type(error).__name__}): delete that folder, and it is made anew."
        ) from error


def require_room(result: Path, needed: int) -> None:
    """Raise `DataError` where a disk has less than ``needed`` bytes left.

    Args:
        result: the empty folder that `built_once` gives.
        needed: bytes of all that is there at a time while it is filled.
    """
    free = shutil.disk_usage(result).free
    if free < needed:
        # The hidden folder that the result is in is nothing to anybody.
        raise DataError(
            f"data.cache_dir={result.parents[1]} is on a disk with {in_bytes(free)} of room, and "
            f"what is built there needs {in_bytes(needed)}: make room, or set data.cache_dir to "
            "another disk."
        )


def in_bytes(count: float) -> str:
    """A number of bytes to three digits, in the unit that it is at least 1 of."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.3g} {units[0]}"
