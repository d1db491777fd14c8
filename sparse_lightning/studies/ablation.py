"""Collapse without regularisation (section 4.4 of the paper), followed over training.

An l1 penalty alone is served best by codes that shrink to nothing while the decoder grows to make
up for it. Training writes the codes' l1 norm and spread and the decoder's column norms after each
epoch; this study puts them side by side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from sparse_lightning.errors import DataError
from sparse_lightning.experiments.runs import TABLE_FILE
from sparse_lightning.experiments.table import epochs_of
from sparse_lightning.quality import quality_of
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

TRACKED = ("code_l1", "code_std", "column_norm", "zeros")
LAYER = re.compile(r"train/column_norm_\d+")


def ablation(trained_models: Sequence[TrainedModel]) -> StudyResult:
    """Codes and decoders over training.

    Args:
        trained_models: models with and without regularisation.

    Returns:
        ``table``: one row per model and epoch (from 1), with the means over training codes of
        ``code_l1``, ``code_std`` (mean over components), ``column_norm``, ``zeros`` and ``psnr``
        (``r2`` of data that are no images),
        and of a decoder of several layers ``column_norm_1``, ``column_norm_2``, … of each by
        itself; ``change``: last value over first value of the codes' and columns' norms and of
        ``code_std``, and the last of the ``epochs``, for each model.
    """
    table = pd.concat([_history(trained) for trained in trained_models], ignore_index=True)
    return StudyResult(table, {"change": _change(table)})


def _history(trained: TrainedModel) -> pd.DataFrame:
    metrics = epochs_of(trained.run)
    if metrics is None:
        raise DataError(
            f"{trained.run.folder / TABLE_FILE} is missing: study=ablation reads the metrics of "
            "each epoch that training wrote there, so give runs whose folder is complete."
        )
    quality = quality_of(metrics).name
    layers = [name.removeprefix("train/") for name in metrics if LAYER.fullmatch(name)]
    columns = {f"train/{name}": name for name in (*TRACKED, quality, *layers)}
    history = metrics[list(columns)].rename(columns=columns)
    history.insert(0, "epoch", metrics["epoch"].astype(int) + 1)
    return pd.DataFrame([trained.columns] * len(history)).join(history)


def _change(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["family", "sparsity_weight", "seed", "run"]
    norms = [name for name in table if name.startswith(("code_", "column_norm"))]
    ordered = table.sort_values("epoch").groupby(keys)
    growth = ordered[norms].last() / ordered[norms].first()
    return growth.assign(epochs=ordered["epoch"].max()).reset_index()
