"""A forked process has none of the threads of the process that it was forked from.

OpenMP, whose threads torch and numba use, would wait for them for ever, or end the process. So
torch runs in one thread in a forked process, and compiled loops that had begun threads are not used
there. Processes that are started by spawning have all threads.
"""

from __future__ import annotations

import os

import torch


class CompiledThreads:
    """Of the loops that numba compiled.

    Attributes:
        begun: whether this process, or one that it was forked from, has used them.
        lost: whether it was one that this process was forked from.
    """

    begun = False
    lost = False


def _after_fork() -> None:
    torch.set_num_threads(1)
    CompiledThreads.lost = CompiledThreads.begun


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
