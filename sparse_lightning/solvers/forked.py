"""A forked process lacks the threads of its parent process.

torch and numba use threads of OpenMP, which would wait for the missing threads for ever, or end the
process. So torch runs in one thread in a forked process. Compiled loops are not used there if the
parent had started threads for them. Spawned processes are not affected.
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
