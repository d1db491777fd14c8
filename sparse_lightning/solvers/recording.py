"""Iterations that an accelerator records once and then replays.

A batch of codes is small: an accelerator has done an operation before the host has asked for the
next, and most of the time of an iteration is the asking. A CUDA graph asks for many at once. It
sees addresses and no names, so that whatever the recorded iterations pass on to the next ones must
be in the same tensors each time: `Recording` copies it there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


class Room(threading.local):
    """What a thread's recordings on one device need, kept from one to the next.

    Each stream keeps room for matrix products, and each graph takes memory from a pool, which is
    that of the last graph as long as there is one: a thread replays one recording at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.last: torch.cuda.CUDAGraph | None = None


room_on = cache(Room)


class Recording:
    """A function of tensors that it changes: run at its first call, recorded at the second.

    Args:
        run: takes and returns nothing; its effects are on the attributes of ``holders``, and on
            no number of the host's. Its first call may still prepare things.
        holders: objects whose attributes ``run`` reads and sets.
        device: of the tensors; where it is not CUDA, each call is a plain one.
    """

    def __init__(
        self, run: Callable[[], None], holders: list[object], device: torch.device
    ) -> None:
        self.run, self.holders, self.device = run, holders, device
        self.is_warm, self.graph = False, None

    def __call__(self) -> None:
        if self.device.type != "cuda" or not self.is_warm:
            self.run()
            self.is_warm = True
            return
        if self.graph is None:
            self.graph = self._record()
        self.graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        graph, room = torch.cuda.CUDAGraph(), room_on(self.device)
        pool = None if room.last is None else room.last.pool()
        room.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(room.stream):
            # Other threads may go on talking to the device, as those that load data do.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                run_in_place(self.run, self.holders)
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self.device).wait_stream(room.stream)
        room.last = graph
        return graph


def run_in_place(run: Callable[[], None], holders: list[object]) -> None:
    """Run, and put what became of each tensor attribute of ``holders`` where it was before."""
    before = [
        (holder, name, value)
        for holder in holders
        for name, value in vars(holder).items()
        if isinstance(value, Tensor)
    ]
    run()
    # All are copied out before any is copied in: tensors may have changed places.
    changed = [
        (holder, name, place, getattr(holder, name).clone())
        for holder, name, place in before
        if getattr(holder, name) is not place
    ]
    for holder, name, place, value in changed:
        place.copy_(value)
        setattr(holder, name, place)
