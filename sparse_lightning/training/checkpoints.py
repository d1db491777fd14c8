"""How checkpoints are kept in a run's folder while the model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from sparse_lightning.files import replaced_whole
from sparse_lightning.training.sparsity_target import AfterSearch


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that replace the one before whole or not at all.

    Lightning's own way goes through a temporary folder that may be on another disk, from which
    the file is copied: a process killed then leaves part of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with replaced_whole(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class RunCheckpoint(AfterSearch, ModelCheckpoint):
    """Lightning's, which finds its files again where the run's folder has been moved.

    Lightning forgets which model was the best when the folder's path has changed, and would replace
    it by the next one, whatever its energy. The best model has the λ that training ends with.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here, scores = Path(self.dirpath), state_dict["best_k_models"]
        if Path(state_dict["dirpath"]) != here:
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                **{name: _moved(state_dict[name], here) for name in _PATHS},
                "best_k_models": {_moved(path, here): scores[path] for path in scores},
            }
        super().load_state_dict(state_dict)


_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path
