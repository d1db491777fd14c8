"""How a model went on improving: what its run recorded of each epoch."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from sparse_lightning.experiments.runs import TABLE_FILE
from sparse_lightning.studies.trained_models import TrainedModel

RECORDED = {"val/psnr": "psnr", "val/zeros": "zeros"}


def validation_history(trained: TrainedModel) -> pd.DataFrame:
    """PSNR and zeros of validation images after each epoch.

    Returns:
        Columns epochs (counted from 1), psnr, zeros; no rows where the run's folder has no record.
    """
    path = Path(trained.columns["run"]) / TABLE_FILE
    if not path.is_file():
        return pd.DataFrame(columns=["epochs", *RECORDED.values()])
    metrics = pd.read_csv(path)
    history = metrics[list(RECORDED)].rename(columns=RECORDED)
    return history.assign(epochs=metrics["epoch"].astype(int) + 1)


def last_change(trained: TrainedModel) -> float:
    """What the last doubling of epochs changed in validation PSNR, in dB; NaN if unknown."""
    psnr = validation_history(trained).set_index("epochs")["psnr"]
    last = psnr.index.max() if len(psnr) else 0
    return float(psnr[last] - psnr[last // 2]) if last // 2 in psnr.index else math.nan
