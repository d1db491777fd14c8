"""Trainings that are interrupted, and what they leave."""

from __future__ import annotations

from pathlib import Path

import lightning
import pandas as pd
import pytest
import torch

from sparse_lightning.train import train


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "metrics.csv")


def assert_equal_runs(one: Path, other: Path) -> None:
    """Bit for bit: the last weights, and every row of the metrics but its times."""
    first, second = (weights_of(run / "checkpoints" / "last.ckpt") for run in (one, other))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
    times = ["seconds", "cpu_seconds"]
    pd.testing.assert_frame_equal(
        table_of(one).drop(columns=times), table_of(other).drop(columns=times), check_exact=True
    )


class Interrupted(Exception):
    """Stands for a power cut in the middle of an epoch."""


class StopAfter(lightning.Callback):
    def __init__(self, epochs: int, error: type[BaseException] = Interrupted) -> None:
        self.epochs, self.error = epochs, error

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.current_epoch == self.epochs and args[-1] == 1:
            raise self.error


def train_with(config, callback: lightning.Callback, train=train) -> None:
    """Train with one callback more than the configuration has."""
    original = lightning.Trainer.__init__

    def extended(self, *args, callbacks=(), **kwargs):
        original(self, *args, callbacks=[*callbacks, callback], **kwargs)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(lightning.Trainer, "__init__", extended)
        train(config)
