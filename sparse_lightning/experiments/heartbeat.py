"""A training run leaves signs of life in its folder: a reader sees how long ago it moved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sparse_lightning.experiments.locks import beat

EVERY = 5.0  # seconds


class Heartbeat(lightning.Callback):
    """Touch ``run.owner`` after a batch of training, validation or test, at most every `EVERY` s.

    It comes from batches and not from a clock, so that a run that hangs falls silent.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._last = 0.0

    @rank_zero_only
    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last >= EVERY:
            self._last = now
            beat(self.folder)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._beat()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._beat()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._beat()
