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
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from sparse_lightning.files import replaced_whole
from sparse_lightning.training import wandb_settings


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

    def spent(self, epoch: int) -> tuple[float, float]:
        """``seconds`` and ``cpu_seconds`` of an epoch that has not ended."""
        row = self.rows.get(epoch, {"seconds": 0.0, "cpu_seconds": 0.0})
        now, cpu = time.monotonic(), time.process_time()
        return (
            row["seconds"] + now - self._row_began,
            row["cpu_seconds"] + cpu - self._cpu_began,
        )

    def add_spent(self, seconds: float, cpu_seconds: float) -> None:
        """Count what the present epoch took before it was interrupted."""
        self._row_began -= seconds
        self._cpu_began -= cpu_seconds

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


class TolerantWandbLogger(WandbLogger):
    """Lightning's, which W&B's failures do not end the run: they are warnings.

    W&B that cannot be begun in its mode is begun in a humbler one (`wandb_settings.begin`). What
    it cannot take later is left out of its record, and told once.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._has_failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return super().experiment
        return wandb_settings.begin(self._begun, self._wandb_init.get("mode"))

    def _begun(self, mode: str) -> Any:
        self._wandb_init["mode"] = mode
        return super().experiment

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Make a warning of what W&B raises in the block."""
        try:
            yield
        except Exception as error:
            if not self._has_failed:
                wandb_settings.warn(
                    f"W&B fails ({type(error).__name__}: {error}): its record of this run has gaps."
                )
            self._has_failed = True

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        with self.tolerated():
            super().log_hyperparams(*args, **kwargs)

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        with self.tolerated():
            super().log_metrics(*args, **kwargs)

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        with self.tolerated():
            super().log_image(*args, **kwargs)

    def log_table(self, *args: Any, **kwargs: Any) -> None:
        with self.tolerated():
            super().log_table(*args, **kwargs)

    def finalize(self, status: str) -> None:
        with self.tolerated():
            super().finalize(status)


def wandb_logger(save_dir: str | Path, **settings: Any) -> WandbLogger:
    """A logger to the one W&B run that belongs to a folder, also when the run is resumed.

    Args:
        save_dir: the run's folder.
        **settings: as for Lightning's WandbLogger; ``id`` and ``resume`` given there win.

    Raises:
        SettingError: settings, or variables of the environment, that W&B does not take.
    """
    wandb_settings.require_settings(settings.get("project"), settings.get("mode"))
    lasting = {"id": lasting_id(Path(save_dir)), "resume": "allow"}
    given = wandb_settings.arguments(**(lasting | settings))
    return TolerantWandbLogger(save_dir=save_dir, **given)


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
        if isinstance(logger, TolerantWandbLogger):
            run = logger.experiment
            with logger.tolerated():
                run.config.update(resolved, allow_val_change=True)
                run.tags = wandb_settings.as_tags((*(run.tags or ()), *data.tags))
        else:
            logger.log_hyperparams(resolved)


@contextmanager
def wandb_finished() -> Iterator[None]:
    """Close the block's W&B run, whether it went well or not; W&B then says how to sync it.

    A run that the caller has begun before is the caller's to close.
    """
    before, failed = wandb.run, True
    try:
        yield
        failed = False
    finally:
        if wandb.run not in (None, before):
            try:
                wandb.finish(exit_code=1 if failed else 0)
            except Exception as error:  # The run's own files are whole.
                wandb_settings.warn(f"W&B's record of this run cannot be closed: {error}")
