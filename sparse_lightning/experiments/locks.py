"""One process at a time works in a folder.

The lock is one of the operating system: it goes with the process that holds it, however that ends.
The process leaves word of itself in ``run.owner``, touches this file while it works (the
heartbeat), and takes the file away when it ends in order. A file that is still there while the lock
is free is that of a dead process. The heartbeat's age decides nothing: the lock does, where it may
be tried.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from lightning_utilities.core.rank_zero import rank_zero_only

from sparse_lightning.errors import SettingError

LOCK_FILE, OWNER_FILE = "run.lock", "run.owner"
# Who only looks whether a folder is locked has the lock for an instant.
PATIENCE = 1.0  # seconds
# Of two that look at once, neither takes the other for one that works.
GLIMPSE = 0.1  # seconds


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, and leave word of who does.

    Raises:
        Timeout: another process has it.
    """
    with FileLock(folder / LOCK_FILE).acquire(timeout=PATIENCE):
        owner = folder / OWNER_FILE
        word = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%F %T}"
        with contextlib.suppress(OSError):  # A full disk; the lock holds all the same.
            owner.write_text(word)
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)


@contextmanager
def held_alone(setting: str, folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that a setting names, for all processes of a training.

    Of several processes that train one model the first holds it; the others are known by their
    rank.

    Raises:
        SettingError: another process works there; it says which.
    """
    with contextlib.ExitStack() as stack:
        # Lightning sets the rank when it is imported.
        if getattr(rank_zero_only, "rank", 0) == 0:
            try:
                stack.enter_context(held(folder))
            except Timeout:
                raise SettingError(
                    f"{setting}={folder} is in use by {_owner(folder)}: wait for it to end, or "
                    "choose another folder."
                ) from None
        yield


def is_locked(folder: Path) -> bool:
    """Whether some process holds a folder's lock.

    Where this process may not try the lock, as in another user's folder, the owner's word counts.
    """
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE).acquire(timeout=GLIMPSE):
            return False
    except Timeout:
        return True
    except OSError:
        return (folder / OWNER_FILE).exists()


def beat(folder: Path) -> None:
    """Leave a sign of life of the process that works in a folder."""
    with contextlib.suppress(OSError):  # Of a network's folder; training goes on all the same.
        os.utime(folder / OWNER_FILE)


def seconds_since_beat(folder: Path) -> float | None:
    """Age of the last sign of life; None where no process works, or the last ended in order."""
    try:
        return max(time.time() - (folder / OWNER_FILE).stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER_FILE).read_text()
    except OSError:
        return "another process"
