"""Compiled code on disk, for speed only: where it is missing or damaged, code is compiled again.

numba by itself ends the program if its files are truncated, or if the disk is full.

A process that compiles code runs another version of it than a process that finds it on disk: LLVM
optimises inner functions once more where they become part of outer ones, and sums in another order.
So that the first run on a machine has the numbers of all others, another process compiles.
"""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

# One warning tells of all functions.
TOLD: set[str] = set()
# What the process that compiles runs. The request comes from its parent alone, by a pipe.
COMPILE = "from sparse_lightning.solvers import numba_cache; numba_cache.compile_as_asked()"


class ForgivingCache(FunctionCache):
    """numba's, whose failures are warnings: the function is compiled instead."""

    compiles_apart = True

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self.function = function

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._load(sig, target_context)
        if found is None and self.compiles_apart and _compile_apart(self.function, sig):
            found = self._load(sig, target_context)
        return found

    def _load(self, *args: Any) -> Any:
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
    # With NUMBA_DISABLE_JIT=1 it is the function itself, and nothing is compiled.
    if not hasattr(function, "py_func"):
        return function
    # Neither beside the source file nor in the user's cache.
    with suppress(RuntimeError, OSError):
        function._cache = ForgivingCache(function.py_func)
    return function


def _compile_apart(function: Callable, types: Any) -> bool:
    """Whether another process could compile a function for arguments of some types."""
    asked = pickle.dumps((sys.path, function.__module__, function.__qualname__, types))
    command = [sys.executable, "-c", COMPILE]
    try:
        return not subprocess.run(command, input=asked, capture_output=True, check=False).returncode
    except OSError:
        return False


def compile_as_asked() -> None:
    """Compile what the parent process asks for on standard input, and keep it on disk."""
    ForgivingCache.compiles_apart = False
    path, module, name, types = pickle.loads(sys.stdin.buffer.read())
    sys.path[:] = path
    getattr(importlib.import_module(module), name).compile(types)


def _tell(what: str, remedy: str, folder: str, error: Exception) -> None:
    if what in TOLD:
        return
    TOLD.add(what)
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    warnings.warn(f"Compiled code in {folder} {what} ({reason}): {remedy}.", stacklevel=2)
