"""What the host's cores solve, also of a batch that is on an accelerator.

Compiled loops (`sparse_lightning.solvers.compiled`) are for the CPU. But a batch of 250 codes does
not fill an accelerator: an iteration takes as long as to start its operations, one after the other,
however small they are. Where the cores of the host are through with an iteration sooner than that,
the quadratics of a batch travel to the host and the codes back, once in an inference.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_COMPILED = 2**26  # bytes of a Gram matrix: 4096 atoms in float32
# Of a batch on an accelerator: multiplications of an iteration, were all codes active, per thread.
MOST_PER_THREAD = 2**20


def can_be_compiled(codes: Tensor) -> bool:
    """Whether compiled loops solve quadratics in codes like these (n, l) sooner than operations.

    The loops read rows of the Gram matrix for every sample: it must not be so large that the cache
    does not help. Of what is on an accelerator each thread of torch's may have a small part; where
    several processes share a host, each has few threads.
    """
    count, atoms = codes.shape
    if atoms**2 * codes.element_size() > LARGEST_COMPILED:
        return False
    most = MOST_PER_THREAD * torch.get_num_threads()
    return codes.device.type == "cpu" or count * atoms**2 <= most
