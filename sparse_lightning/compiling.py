"""Compiling loops over samples by numba, and running them beside torch.

A process that has been forked from one that used such loops must not use them (it ends): start
processes by spawning.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, local

import numba
import torch
from numba import njit

# NaN and infinities keep their meaning: they say that inference diverged.
OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}
# One of numba's ways to run threads, which it takes where it finds no other, allows one caller.
LOCK = Lock()
# How many threads numba has been told to take, a number that each caller has of its own.
TOLD = local()
# Samples that one thread takes at a time; sums do not depend on how many threads there are.
ROWS = 32
# Numbers, such as those of a batch of codes, for which another thread pays.
NUMBERS_PER_THREAD = 2**13


def compiled(function: Callable, **options: bool | str) -> Callable:
    """Compile at the first call, and keep the code on disk where there is a folder for it."""
    try:
        return njit(cache=True, **OPTIONS, **options)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache
        return njit(**OPTIONS, **options)(function)


def inlined(function: Callable) -> Callable:
    """Compile as a part of whatever calls it: to hand over arrays takes longer than small loops."""
    return compiled(function, inline="always")


def in_parallel(function: Callable) -> Callable:
    """Compile a function whose ``prange`` is to be shared between threads."""
    return compiled(function, parallel=True)


def run_in_threads(function: Callable, size: int, *arguments: object) -> None:
    """Call with as many threads as torch uses and that many numbers are worth.

    Torch is left with its own.
    """
    allowed = torch.get_num_threads()
    threads = min(allowed, numba.config.NUMBA_NUM_THREADS, max(1, size // NUMBERS_PER_THREAD))
    with LOCK:
        if threads != getattr(TOLD, "threads", None):
            numba.set_num_threads(threads)
            # The first call of all sets the number of OpenMP's threads, which is torch's too.
            if torch.get_num_threads() != allowed:
                torch.set_num_threads(allowed)
            TOLD.threads = threads
        function(*arguments)
