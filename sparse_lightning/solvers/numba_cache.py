"""Compiled code on disk, for speed only: where it is missing or damaged, code is compiled again.

numba by itself ends the program if its files are truncated, or if the disk is full.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

# One warning tells of all functions.
TOLD: set[str] = set()


class ForgivingCache(FunctionCache):
    """numba's, whose failures are warnings: the function is compiled instead."""

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception as error:  # Damaged files raise anything at all.
            # Numbers of its files begin anew with the index, so that damaged ones are replaced.
            with suppress(OSError):
                Path(self._cache_file._index_path).unlink()
            _tell("is damaged", "it is compiled, and kept anew", self.cache_path, error)
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            super().save_overload(*args)
        except Exception as error:
            self.disable()
            remedy = (
                "each start compiles it again, which takes a minute: make room there, or set the "
                "environment variable NUMBA_CACHE_DIR to a folder that can be written"
            )
            _tell("cannot be kept", remedy, self.cache_path, error)


def keep_on_disk(function: Any) -> Any:
    """Give what ``numba.njit`` returns a cache on disk, where there is a folder for one."""
    # Neither beside the source file nor in the user's cache.
    with suppress(RuntimeError, OSError):
        function._cache = ForgivingCache(function.py_func)
    return function


def _tell(what: str, remedy: str, folder: str, error: Exception) -> None:
    if what in TOLD:
        return
    TOLD.add(what)
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    warnings.warn(f"Compiled code in {folder} {what} ({reason}): {remedy}.", stacklevel=2)
