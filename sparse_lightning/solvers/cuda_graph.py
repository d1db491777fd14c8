"""Iterations that a CUDA device records once and then replays. For speed only.

A batch of codes is small, so that launching an operation takes longer than the operation itself.
A CUDA graph launches many operations at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

import torch

from sparse_lightning.datafits import QuadraticDataFit, ReluNetworkDataFit
from sparse_lightning.solvers.base import has_known_terms


def applies(objective: Any, device: torch.device) -> bool:
    """Whether each iteration is made of equal operations on one CUDA device.

    That is known of the data fits named here and of the terms that `has_known_terms` means. A part
    of a user's own may ask the device for a number.
    """
    return (
        device.type == "cuda"
        and has_known_terms(objective)
        and type(objective.datafit) in (QuadraticDataFit, ReluNetworkDataFit)
        and objective.processes is None
    )


class Workspace(threading.local):
    """What a thread's graphs on one device need, kept from one to the next.

    Each stream keeps room for matrix products, and each graph takes memory from a pool, which is
    that of the last graph as long as there is one: a thread replays one graph at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.last: torch.cuda.CUDAGraph | None = None


workspace_on = cache(Workspace)


class Replayed:
    """A function from a state (a dataclass of tensors) to the next state of equal shapes.

    The first call is a plain one, which may still prepare things. The second is recorded, and
    replayed from then on. A graph sees addresses and no names: the recorded function ends by
    copying the new state to where it read the old one.
    """

    def __init__(self, function: Callable[[Any], Any], device: torch.device) -> None:
        self.function, self.device = function, device
        self.is_warm, self.graph, self.state = False, None, None

    def __call__(self, state: Any) -> Any:
        if not self.is_warm:
            self.is_warm = True
            return self.function(state)
        if self.graph is None:
            self.state = state.clone()
            self.graph = self._record()
        elif state is not self.state:
            _copy(state, self.state)
        self.graph.replay()
        return self.state

    def _record(self) -> torch.cuda.CUDAGraph:
        graph, workspace = torch.cuda.CUDAGraph(), workspace_on(self.device)
        pool = None if workspace.last is None else workspace.last.pool()
        workspace.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(workspace.stream):
            # Other threads may go on talking to the device, as those that load data do.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                _copy(self.function(self.state), self.state)
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self.device).wait_stream(workspace.stream)
        workspace.last = graph
        return graph


def _copy(source: Any, target: Any) -> None:
    """Copy a state's tensors to where those of another are."""
    # All are cloned before any is overwritten: some may be one tensor under two names.
    values = {field.name: getattr(source, field.name).clone() for field in fields(target)}
    for name, value in values.items():
        getattr(target, name).copy_(value)
