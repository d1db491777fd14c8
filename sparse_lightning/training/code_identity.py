"""Which state of the code a result is of."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@functools.cache
def code_identity() -> dict[str, str | None]:
    """``version`` of the package, and ``commit`` where it runs from a git checkout.

    A commit whose tracked files have been changed since ends with ``-dirty``.
    """
    try:
        installed = version("sparse_lightning")
    except PackageNotFoundError:
        installed = None
    return {"version": installed, "commit": _commit(CHECKOUT)}


def _commit(folder: Path) -> str | None:
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
