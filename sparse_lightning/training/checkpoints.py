"""How checkpoints are kept in a run's folder while the model is trained."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sparse_lightning.errors import SettingError, require_positive
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
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:
                # torch's writer in C++ says "unexpected pos" of a disk that takes no more, and when
                # a signal ends the writing.
                if isinstance(error.__context__, SystemExit | KeyboardInterrupt):
                    raise error.__context__ from None
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


class RunCheckpoint(AfterSearch, ModelCheckpoint):
    """Lightning's, which finds its files again where the run's folder has been moved.

    Lightning forgets which model was the best when the folder's path has changed, and would replace
    it by the next one, whatever its energy. The best model has the λ that training ends with.

    One without ``monitor`` also saves inside an epoch: every so many minutes, and when SIGTERM ends
    the training of a single process. `EpochInProgress` keeps what goes on from there beside the
    model. Nothing is saved between two steps of the optimizer, nor before a validation: the next
    batch's end is as good.

    Args:
        dirpath: where the files go.
        every_minutes: None for the ends of epochs and SIGTERM alone.
        **settings: Lightning's.

    Raises:
        SettingError: ``every_minutes`` is not above 0, or belongs to the best model, which is
            chosen at the ends of epochs. In ``on_train_start``: the data's loader cannot go on
            inside an epoch.
    """

    def __init__(
        self, dirpath: str | Path, every_minutes: float | None = None, **settings: Any
    ) -> None:
        super().__init__(dirpath, **settings)
        self.every_minutes, self._saved_at = every_minutes, time.monotonic()
        if every_minutes is None:
            return
        if self.monitor is not None:
            raise SettingError(
                f"callbacks.checkpoint.every_minutes={every_minutes} has no meaning for the best "
                "model, which is chosen at the ends of epochs: set callbacks.last.every_minutes."
            )
        require_positive("callbacks.last.every_minutes", every_minutes)

    def on_train_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        super().on_train_start(trainer, *args)
        self._saved_at = time.monotonic()
        if self.every_minutes is not None and not _has_resumable_data(trainer):
            raise SettingError(
                f"callbacks.last.every_minutes={self.every_minutes} needs a train_dataloader() "
                f"that can go on inside an epoch, and that of {type(trainer.datamodule).__name__} "
                "has no state_dict and load_state_dict: return a "
                "sparse_lightning.data.batch.ResumableLoader, or leave every_minutes null."
            )

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.every_minutes is None:
            return
        has_passed = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        if trainer.strategy.broadcast(has_passed):
            self._save_behind(trainer, batch_idx)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises it behind a batch. Several processes do not get a signal at one batch.
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1:
            self._save_behind(trainer, trainer.fit_loop.epoch_loop.batch_idx)

    def _save_behind(self, trainer: lightning.Trainer, batch_index: int) -> None:
        if self.monitor is not None or trainer.fast_dev_run:
            return
        if _can_go_on_behind(trainer, batch_index):
            path = Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}"
            trainer.save_checkpoint(path, weights_only=False)
            self._saved_at = time.monotonic()

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


def _has_resumable_data(trainer: lightning.Trainer) -> bool:
    loaders = CombinedLoader(trainer.train_dataloader).flattened
    return all(hasattr(loader, "load_state_dict") for loader in loaders)


def _can_go_on_behind(trainer: lightning.Trainer, batch_index: int) -> bool:
    """Whether a training that is saved behind this batch goes on with the next as if it were not.

    The end of an epoch has its own checkpoint.
    """
    has_stepped = (batch_index + 1) % trainer.accumulate_grad_batches == 0
    if trainer.is_last_batch or not has_stepped or not _has_resumable_data(trainer):
        return False
    # Lightning would take a validation that is due for one that has been.
    loop = trainer.fit_loop
    return not loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
