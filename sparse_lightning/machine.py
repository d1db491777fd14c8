"""What this package asks of the machine that it runs on, and of the terminal that it prints to."""

from __future__ import annotations

import sys

from sparse_lightning.errors import SettingError

SUPPORTED = {"linux": "Linux", "darwin": "macOS"}


def require_supported() -> None:
    """Raise `SettingError` on an operating system that the package is not written for."""
    if sys.platform not in SUPPORTED:
        raise SettingError(
            f"sparse_lightning runs on {' and '.join(SUPPORTED.values())}, and this is "
            f"{sys.platform}: on Windows use WSL (the Windows Subsystem for Linux), which is Linux."
        )


def tolerate_poor_terminals() -> None:
    """Let a terminal that lacks a character, as one without UTF-8 lacks λ, show ``?`` for it."""
    for stream in (sys.stdout, sys.stderr):
        # What stands in for a stream, as in a notebook, may lack this.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
