"""A sweep's results as one W&B run beside those of its jobs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import wandb
from omegaconf import DictConfig

from sparse_lightning.experiments.table import REGRET_FILE
from sparse_lightning.training import wandb_settings
from sparse_lightning.training.loggers import lasting_id


def log(config: DictConfig, folder: Path, table: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Log tables and regret curve where the jobs log to W&B; what W&B fails is a warning.

    Args:
        config: settings of one of the jobs.
        folder: the sweep's; its name is the group that the jobs share.
        table: of `sparse_lightning.experiments.table.collect`.
        summary: of `sparse_lightning.experiments.table.summarize`.
    """
    settings = (config.logger or {}).get("wandb")
    if settings is None:
        return
    given = wandb_settings.arguments(
        project=settings.project,
        entity=settings.get("entity"),
        group=folder.name,
        job_type="aggregate",
        name=f"{folder.name}-aggregate",
        tags=[folder.name],
        dir=folder,
        id=lasting_id(folder),
        resume="allow",
    )
    try:
        run = wandb_settings.begin(lambda mode: wandb.init(mode=mode, **given), settings.mode)
        with run:
            run.log(
                {
                    "runs": wandb.Table(dataframe=_plain(table)),
                    "summary": wandb.Table(dataframe=_plain(summary)),
                }
            )
            if (folder / REGRET_FILE).exists():
                run.log({"regret": wandb.Image(str(folder / REGRET_FILE))})
    except Exception as error:  # The tables are in the folder.
        wandb_settings.warn(f"W&B fails, and has no tables of {folder}: {error}")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """With the types that a wandb.Table knows."""
    return frame.astype(object).where(frame.notna(), None)
