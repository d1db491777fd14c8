"""How checkpoints are kept in a run's folder while the model is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from sparse_lightning.files import replaced_whole


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that replace the one before whole or not at all.

    Lightning's own way goes through a temporary folder that may be on another disk, from which
    the file is copied: a process killed then leaves part of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with replaced_whole(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:
                # torch's writer in C++ says "unexpected pos" of a disk that takes no more.
                raise OSError(_why_unwritten(temporary, error)) from error


def _why_unwritten(path: Path, error: RuntimeError) -> str:
    """What the operating system says where torch does not."""
    try:
        with path.open("ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as own:
        return own.strerror or str(own)
    return str(error).splitlines()[0]


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, which finds its files again where the run's folder has been moved.

    Lightning forgets which model was the best when the folder's path has changed, and would replace
    it by the next one, whatever its energy.
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
