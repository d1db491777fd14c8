"""Trainings that are interrupted, and what they leave."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch

from sparse_lightning.train import train


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


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
