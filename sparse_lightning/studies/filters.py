"""How noisy encoder filters are (Fig. 14 of the paper): the rows of U, unit by unit.

A unit that is hardly active is hardly trained, and its filter is the noise that it was drawn as. So
filters are counted twice: all of them, as a picture of the encoder shows them, and those of units
in use. Filters of colour images are measured by their mean over channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import as_pictures, grey
from sparse_lightning.errors import NoModelsError
from sparse_lightning.studies.coding import all_codes, fingerprint, require_images
from sparse_lightning.studies.epochs import of_half, with_changes
from sparse_lightning.studies.noise import noise_share
from sparse_lightning.studies.result_cache import ResultCache, Rows
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

KEYS = ["data", "family", "solver", "sparsity_weight", "seed", "run"]
MEASURES = ["noise", "noise_in_use"]


def filters(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = 2000,
    least_active: float = 0.01,
) -> StudyResult:
    """The share of white noise in each encoder filter.

    Args:
        trained_models: models of any families, λ and seeds; those without filters are left out.
        data: whose validation images tell which units are in use.
        cache: of what has been measured already.
        num_images: the first so many of them, None for all.
        least_active: fraction of images from which on a unit counts as in use.

    Returns:
        ``table``: one row per filter: ``unit``, ``active`` (fraction of images), ``used`` and
        ``noise`` (see `noise_share`); ``summary``: one row per model, see `summary`, and in
        columns ``change_...`` what the last half of the epochs changed.

    Raises:
        SettingError: data that are no images.
        NoModelsError: no model has encoder filters.
    """
    require_images(data, "filters")
    setting = [fingerprint(data), num_images]
    rows, earlier = [], []
    measured = functools.partial(_measured, data=data, num_images=num_images)
    for trained in tqdm(trained_models, desc="filters", unit="model"):
        found = cache.rows(
            ["filters", trained.digest, *setting], functools.partial(measured, trained)
        )
        rows += [trained.columns | row for row in found]
        key = ["filters after half of the epochs", trained.digest, trained.columns["epochs"]]
        half = cache.rows([*key, *setting], of_half(trained, measured))
        earlier += [trained.columns | row for row in half]
    if not rows:
        raise NoModelsError(
            "study=filters looks at encoder filters, and no model here has any: choose others by "
            "runs= or where.family=."
        )
    table, before = (_flagged(found, least_active) for found in (rows, earlier))
    models = with_changes(summary(table), summary(before), KEYS, MEASURES)
    return StudyResult(table, {"summary": models})


def _measured(trained: TrainedModel, data: SplitDataModule, num_images: int | None) -> Rows:
    encoder = trained.model.encoder
    weights = None if encoder is None else encoder.filters()
    if weights is None:
        return []
    active = (all_codes(trained.model, data, "val", num_images) != 0).mean(0)
    noise = noise_share(grey(as_pictures(weights.numpy(), data.image_shape)))
    return [
        {"unit": unit, "active": float(active[unit]), "noise": float(noise[unit])}
        for unit in range(len(noise))
    ]


def _flagged(rows: Rows, least_active: float) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=None if rows else [*KEYS, "epochs", "active", "noise"])
    return table.assign(used=table["active"] >= least_active)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model.

    Returns:
        Means of ``noise`` over all filters, and ``noise_in_use`` over those of units in use, NaN
        where none is; ``used``, the share of units in use; and the ``epochs`` of the run.
    """
    models = table.groupby(KEYS)
    in_use = table[table["used"]].groupby(KEYS)["noise"].mean().rename("noise_in_use")
    return models[["noise", "used"]].mean().join([in_use, models["epochs"].first()]).reset_index()
