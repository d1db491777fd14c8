"""Which quadratics the host's cores solve, also for a batch that is on an accelerator.

Compiled loops (`sparse_lightning.solvers.compiled`) are for the CPU. But a batch of 250 codes does
not fill an accelerator: an iteration there takes as long as to start its operations, one after the
other, however small they are. Where one quadratic saves many gradients, as a leap does
(`sparse_lightning.solvers.leaps`), it is worth while to let it travel to the host, and the codes
back.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_COMPILED = 2**26  # bytes of a Gram matrix: 4096 atoms in float32
# Of a batch on an accelerator: multiplications of an iteration, were all codes active, per thread.
MOST_PER_THREAD = 2**20


def can_be_compiled(codes: Tensor) -> bool:
    """Whether compiled loops solve quadratics in codes (n, l), which are on the CPU, and pay.

    They read rows of the Gram matrix for every sample: it must not be so large that the cache does
    not help.
    """
    return codes.device.type == "cpu" and _fits_the_cache(codes)


def can_be_helped(codes: Tensor) -> bool:
    """Whether they do, wherever the codes (n, l) are, if each quadratic is worth many gradients.

    Of what is on an accelerator each thread of torch's may have a small part. Where several
    processes share a host, each has few threads.
    """
    if codes.device.type == "cpu":
        return can_be_compiled(codes)
    count, atoms = codes.shape
    most = MOST_PER_THREAD * torch.get_num_threads()
    return _fits_the_cache(codes) and count * atoms**2 <= most


def _fits_the_cache(codes: Tensor) -> bool:
    return codes.shape[1] ** 2 * codes.element_size() <= LARGEST_COMPILED
