"""Inference in a process that was forked after inference."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.energy import Energy
from sparse_lightning.solvers import FISTA, Adaptive
from sparse_lightning.solvers.forked import CompiledThreads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")


@pytest.mark.parametrize("solver", [FISTA(0.3, 2_000, 1e-10), Adaptive(2_000, 1e-10)])
@pytest.mark.parametrize(
    "make",
    [lambda: LinearDecoder(code_dim=8, input_dim=9), lambda: MultiLayerDecoder(8, [6], 9)],
    ids=["linear", "network"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_finds_the_codes_that_its_parent_found(solver, make):
    decoder, inputs = make().double(), torch.randn(2, 9).double()
    # The encoder term makes it convex: compiled loops and others must not end in two minima.
    energy = Energy(sparsity_weight=0.01, encoder_weight=8.0)
    objective = energy.bind(decoder, inputs, torch.rand(2, 8).double())
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mine = solver(objective, torch.zeros(2, 8).double()).codes
        # Enough of them for threads to be begun.
        _ = torch.ones(1_000_000).sin()
        reading, writing = os.pipe()
        if not (child := os.fork()):
            # A child that raises or hangs must end too, without pytest's ending.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            try:
                report(writing, solver(objective, torch.zeros(2, 8).double()).codes)
            finally:
                os._exit(1)
        os.close(writing)
        _, status = os.waitpid(child, 0)
    finally:
        torch.set_num_threads(threads)
    assert os.waitstatus_to_exitcode(status) == 0
    with os.fdopen(reading, "rb") as pipe:
        told_threads, *numbers = pipe.read().decode().split()
    assert told_threads == "1"
    theirs = torch.tensor([float(number) for number in numbers]).double().view(2, 8)
    torch.testing.assert_close(theirs, mine, rtol=0, atol=1e-3)
    assert not CompiledThreads.lost


def report(writing: int, codes: torch.Tensor) -> None:
    """Tell threads and codes through a pipe, and end the forked process without pytest's ending."""
    _ = torch.ones(1_000_000).sin()
    numbers = " ".join(repr(number) for number in codes.flatten().tolist())
    os.write(writing, f"{torch.get_num_threads()} {numbers}".encode())
    os._exit(0)
