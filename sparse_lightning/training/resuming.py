"""Going on from a checkpoint: a run's own last one, or another run's."""

from __future__ import annotations

from typing import Any

import lightning

from sparse_lightning.model import SparseAutoencoder


class FreshCallbacks(lightning.Callback):
    """For a run that starts from another's checkpoint: its best model and time are its own."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: SparseAutoencoder, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["callbacks"] = {}
