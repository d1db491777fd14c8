"""Which state of the code a result is of."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@functools.cache
def code_identity() -> dict[str, str | None]:
    """``version`` of the package, and ``commit`` where it runs from a git checkout.

    Where tracked files have been changed since, ``-dirty-`` and a digest of the changes follow.
    """
    try:
        installed = version("sparse_lightning")
    except PackageNotFoundError:
        installed = None
    return {"version": installed, "commit": commit_of(CHECKOUT)}


def commit_of(folder: Path) -> str | None:
    """That of a git checkout, with what has been changed since; None of another folder."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD").decode().strip()
        changes = _git(folder, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else commit


def _git(folder: Path, *words: str) -> bytes:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
