"""The metrics of each epoch that a model's run recorded."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from sparse_lightning.experiments.runs import TABLE_FILE
from sparse_lightning.quality import PSNR, quality_of
from sparse_lightning.studies.trained_models import TrainedModel


def validation_history(trained: TrainedModel) -> pd.DataFrame:
    """PSNR, or R² of data that are no images, and zeros of validation data after each epoch.

    Returns:
        Columns epochs (counted from 1), psnr or r2, zeros; no rows where the run's folder has no
        record.
    """
    path = Path(trained.columns["run"]) / TABLE_FILE
    if not path.is_file():
        return pd.DataFrame(columns=["epochs", PSNR.name, "zeros"])
    metrics = pd.read_csv(path)
    names = (quality_of(metrics).name, "zeros")
    history = metrics[[f"val/{name}" for name in names]].set_axis(names, axis="columns")
    return history.assign(epochs=metrics["epoch"].astype(int) + 1)


def last_change(trained: TrainedModel) -> float:
    """What the last doubling of epochs changed in validation PSNR, in dB; NaN if unknown."""
    history = validation_history(trained).set_index("epochs")
    values = history[quality_of(history).name]
    last = values.index.max() if len(values) else 0
    return float(values[last] - values[last // 2]) if last // 2 in values.index else math.nan
