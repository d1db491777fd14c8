"""What a model's run recorded of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from sparse_lightning.experiments.records import FOUND_WEIGHT
from sparse_lightning.experiments.table import epochs_of
from sparse_lightning.quality import PSNR, quality_of
from sparse_lightning.studies.result_cache import Rows
from sparse_lightning.studies.trained_models import TrainedModel


def halfway(trained: TrainedModel) -> TrainedModel | None:
    """The model that training had after half of its epochs, as far as it was kept.

    It is the best model, where that is no younger, else what ``callbacks=milestones`` kept of that
    epoch. None where neither is there.
    """
    metrics = epochs_of(trained.run)
    if metrics is None or metrics.empty or trained.metric not in metrics:
        return None
    metrics = metrics.set_index("epoch")
    half = (int(metrics.index.max()) + 1) // 2
    # Energies of different λ are no measure of one another.
    weight = metrics.get(FOUND_WEIGHT, pd.Series(0.0, metrics.index))
    if metrics[trained.metric][weight == weight.dropna().iloc[-1]].idxmin() < half:
        return trained
    path = trained.run.folder / "milestones" / f"epoch={half - 1}.ckpt"
    return TrainedModel(trained.run, path, by_name=True) if path.is_file() else None


def of_half(
    trained: TrainedModel, measure: Callable[[TrainedModel], Rows]
) -> Callable[[], Rows | None]:
    """What measures a model as it was after half of its epochs, for `ResultCache.rows`.

    It gives None where that model was not kept.
    """

    def measured() -> Rows | None:
        half = halfway(trained)
        return None if half is None else measure(half)

    return measured


def validation_history(trained: TrainedModel, of_best: bool = True) -> pd.DataFrame:
    """PSNR, or R² of data that are no images, and zeros after each epoch.

    The best model so far has the lowest energy of validation data, or whatever its training rule
    names: its checkpoint is what studies measure. Energies are compared at equal λ.

    Args:
        trained: whose run recorded them.
        of_best: whether of the best model so far, or of the epoch's own weights.

    Returns:
        Columns epochs (counted from 1), psnr or r2, zeros; no rows where the run's folder has no
        record.
    """
    metrics = epochs_of(trained.run)
    if metrics is None:
        return pd.DataFrame(columns=["epochs", PSNR.name, "zeros"])
    names = (quality_of(metrics).name, "zeros")
    history = metrics[[f"val/{name}" for name in names]].set_axis(names, axis="columns")
    history = history.assign(epochs=metrics["epoch"].astype(int) + 1)
    if not of_best:
        return history
    energy = metrics[trained.metric]
    # Only runs with target_zeros have this column.
    weight = metrics.get(FOUND_WEIGHT, pd.Series(0.0, metrics.index))
    is_best = energy == energy.groupby(weight).cummin()
    return history.where(is_best).ffill().assign(epochs=history["epochs"])


def with_changes(
    models: pd.DataFrame, earlier: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """A summary, and in columns ``change_...`` what the last half of the epochs changed.

    Args:
        models: one row per model.
        earlier: the same of the models after half of their epochs, where these were kept (see
            `halfway`); the change of others is NaN.
        keys: columns that name a model.
        measures: columns whose change is told, as far as ``models`` has them.
    """
    names = [name for name in measures if name in models]
    before = models[[*keys]].merge(earlier, on=[*keys], how="left")
    changes = models[names] - before[names].astype(float)
    return models.join(changes.add_prefix("change_"))
