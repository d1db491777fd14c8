"""The run's own table of metrics, and the care that W&B needs around a run."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.files import replaced_whole


class MetricsTable(Logger):
    """``metrics.csv``: one row per epoch, all of its training and validation metrics.

    ``seconds`` is the time since the row before, and ``cpu_seconds`` what all threads of the
    process took of it, which a pause of the machine leaves alone. A resumed run goes on with the
    rows of the epochs that it does not repeat.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.rows: dict[int, dict[str, float]] = {}
        self._row_began, self._cpu_began = time.monotonic(), time.process_time()

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings have a file of their own, ``config.yaml``."""

    def begin(self, first_epoch: int) -> None:
        """Start the clock at ``first_epoch``, keeping the rows of earlier epochs."""
        if first_epoch > 0 and self.path.exists():
            kept = pd.read_csv(self.path).query("epoch < @first_epoch")
            self.rows = {int(row["epoch"]): row for row in kept.to_dict("records")}
        self._row_began, self._cpu_began = time.monotonic(), time.process_time()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        measured = {
            name: value for name, value in metrics.items() if name.startswith(("train/", "val/"))
        }
        if not measured or "epoch" not in metrics:
            return
        epoch = int(metrics["epoch"])
        if epoch not in self.rows:
            self.rows[epoch] = {"epoch": epoch, "seconds": 0.0, "cpu_seconds": 0.0}
        now, cpu = time.monotonic(), time.process_time()
        row = self.rows[epoch]
        row["seconds"] += now - self._row_began
        row["cpu_seconds"] += cpu - self._cpu_began
        self._row_began, self._cpu_began = now, cpu
        row.update(measured)
        with replaced_whole(self.path) as temporary:
            self.frame().to_csv(temporary, index=False)

    def frame(self) -> pd.DataFrame:
        """The table so far."""
        return pd.DataFrame(list(self.rows.values()))


def wandb_logger(save_dir: str | Path, **settings: Any) -> WandbLogger:
    """A logger to the one W&B run that belongs to a folder, also when the run is resumed.

    Args:
        save_dir: the run's folder.
        **settings: as for Lightning's WandbLogger; ``id`` and ``resume`` given there win.
    """
    lasting = {"id": lasting_id(Path(save_dir)), "resume": "allow"}
    return WandbLogger(save_dir=save_dir, **(lasting | settings))


@rank_zero_only
def lasting_id(folder: Path, file: str = "wandb_id") -> str:
    """The logger's run that belongs to a folder: what a file in it says, drawn at first."""
    path = folder / file
    if not path.exists():
        with replaced_whole(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text()


@rank_zero_only
def record_config(loggers: list[Logger], config: DictConfig, data: LightningDataModule) -> None:
    """Give the resolved configuration, and what the data are, to the loggers that keep them."""
    resolved = OmegaConf.to_container(config, resolve=True) | {"data_title": data.title}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.config.update(resolved, allow_val_change=True)
            run.tags = (*(run.tags or ()), *data.tags)
        else:
            logger.log_hyperparams(resolved)


@contextmanager
def wandb_finished() -> Iterator[None]:
    """Close the W&B run, whether the block went well or not; W&B then says how to sync it."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if wandb.run is not None:
            wandb.finish(exit_code=1 if failed else 0)
