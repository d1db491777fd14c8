"""How far a whole sweep is, read off its jobs' folders, wherever they run."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import Self

from tqdm import tqdm

from sparse_lightning.experiments.runs import Run, State
from sparse_lightning.quality import quality_of

EVERY = 2.0  # seconds
ENDED = (State.FINISHED, State.FAILED, State.DIVERGED)
LAYOUT = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"


class SweepProgress:
    """A line at the foot of the terminal: done, running, failed, left, time left.

    A job in training counts by the epochs that it has done. Where there is no terminal, every job
    that ends has a line of its own and there is no bar.

    Args:
        jobs: each run with the number of epochs that it is to have.
    """

    def __init__(self, jobs: list[tuple[Run, int]]) -> None:
        self.jobs = jobs
        self.stream = sys.stderr
        self.states = {run.folder: run.state_of(epochs) for run, epochs in jobs}
        self.began, self.done_before = time.monotonic(), self._epochs_done()
        self.epochs = sum(epochs for _, epochs in jobs)
        self._bar = tqdm(
            total=self.epochs, desc="Sweep", file=self.stream, disable=None, bar_format=LAYOUT
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self.update()
        self._bar.close()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self.update()

    def update(self) -> None:
        """Look at the folders, and show what has changed."""
        for run, epochs in self.jobs:
            before = self.states[run.folder]
            # What has ended is not looked at again.
            now = before if before is State.FINISHED else run.state_of(epochs)
            self.states[run.folder] = now
            if now is not before and now in ENDED:
                self._bar.write(f"{self.counts()}; {ending(run, now)}", file=self.stream)
        self._bar.set_postfix_str(f"{self.counts()}, {self.time_left()}", refresh=False)
        self._bar.n = self._epochs_done()
        self._bar.refresh()

    def counts(self) -> str:
        """Such as ``3 done, 2 running, 1 failed, 2 left``; one that diverged has failed."""
        counts = Counter(self.states.values())
        failed = counts[State.FAILED] + counts[State.DIVERGED]
        left = counts[State.WAITING] + counts[State.INTERRUPTED]
        return (
            f"{counts[State.FINISHED]} done, {counts[State.RUNNING]} running, "
            f"{failed} failed, {left} left"
        )

    def _epochs_done(self) -> float:
        return sum(
            epochs if self.states[run.folder] in ENDED else min(run.epochs_done, epochs)
            for run, epochs in self.jobs
        )

    def time_left(self) -> str:
        """At the pace since this began, in epochs."""
        done = self._epochs_done()
        here = done - self.done_before
        if here <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.began) * (self.epochs - done) / here
        return f"{tqdm.format_interval(seconds)} left"


def ending(run: Run, state: State) -> str:
    """One line about a job that has ended."""
    if state is not State.FINISHED:
        return ": ".join(filter(None, (state, run.folder.name, run.reason)))
    metrics = run.results
    quality, told = quality_of(metrics), [f"{metrics['seconds']:.0f} s"]
    # Without test batches there are no results of them.
    if (name := f"test/{quality.name}") in metrics:
        told = [quality.shown(metrics[name]), f"{metrics['test/zeros']:.1%} zeros", *told]
    return f"finished: {run.folder.name}: {', '.join(told)}"
