"""Files that are written whole or not at all, and digests that name a content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_lightning.errors import SettingError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A full disk, and a quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (
    errno.ENAMETOOLONG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EFBIG,
)


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Raises:
        StorageError: the operating system refuses, as it does where a disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Short, so that a name which is not too long does not become so.
        temporary = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
        # As any new file, it may be read by those whom the umask allows to.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say in one sentence what could not be written, where, and why.

    Raises:
        StorageError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        # An error of a program that writes in the block may know of no reason.
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError):
            # A file stands where a folder would be made.
            reason = os.strerror(errno.ENOTDIR)
        failure = StorageError(
            f"{path} cannot be written ({reason}): choose {better_folder(error)}. What was written "
            "there before is whole."
        )
        failure.strerror = reason
        raise failure from error


def storage_message(error: OSError) -> str | None:
    """A sentence for what could not be made or written, None for errors of other kinds."""
    if error.errno not in (*FULL, *REFUSED):
        return None
    place = "A file" if error.filename is None else error.filename
    return f"{place} cannot be made or written ({error.strerror}): choose {better_folder(error)}."


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented."""
    with replaced_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def digest(content: Any) -> str:
    """20 hexadecimal digits that stand for anything that JSON can hold."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, and return its path."""
    with replaced_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")
    return path


def require_writable(setting: str, folder: Path) -> None:
    """Make a folder and raise `SettingError`, naming the setting, where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingError(
            f"{setting}={folder} cannot be written ({error.strerror or error}): choose "
            f"{better_folder(error)}."
        ) from error


def better_folder(error: OSError) -> str:
    """What kind of folder would do, where the operating system has refused one."""
    if error.errno == errno.ENAMETOOLONG:
        return "a shorter name"
    if error.errno in FULL:
        return "a place on a disk with room, or make room"
    return "a place that can"
