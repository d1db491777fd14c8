"""Which inputs each code component is most active for, beside the atom that it draws.

An atom shows what a component draws. The inputs that activate the component most show when it is
used. The two can differ: several components may draw one thing together, and an encoder's filters
need not be the decoder's atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import as_pictures
from sparse_lightning.errors import SettingError
from sparse_lightning.studies.coding import (
    all_codes,
    batches,
    fingerprint,
    largest_codes,
    require_images,
)
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import Pictures, StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

ATOM, INPUT = "atom", "input"


def activating(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    split: str = "val",
    num_images: int | None = None,
    num_shown: int = 8,
) -> StudyResult:
    """The most activating images of each code component.

    A component's activity is the magnitude of its code, so that signed codes count as well.

    Args:
        trained_models: models of any families, λ and seeds.
        data: images.
        cache: of codes that are known already.
        split: where the images are from.
        num_images: the first so many of them, None for all.
        num_shown: images of each component.

    Returns:
        ``table``: one row per component and image, the most activating first (``rank`` from 1):
        ``image`` (row in the split), ``code``, ``label`` where the data have labels, and
        ``active``, the fraction of images for which the component is active. A component that is
        active for fewer images has fewer rows, and one that never is has none. ``summary``: one row
        per model, with its number of ``units``, how many are ``dead``, and, where there are
        labels, the ``purity`` and the ``purity_by_chance``: the mean over components with
        ``num_shown`` images of the share of these that has the commonest label, and the same mean
        for labels in a random order. Pictures of the atoms and the images.

    Raises:
        SettingError: data that are no images, or a split that they do not have.
    """
    require_images(data, "activating")
    if split not in data.splits:
        raise SettingError(f"study.compute.split={split} must be one of {', '.join(data.splits)}.")
    images, labels = _images_and_labels(data, split, num_images)
    samples = fingerprint(data)
    rows: list[dict] = []
    index: list[dict] = []
    tiles: list[np.ndarray] = []
    counts = []
    for trained in tqdm(trained_models, desc="activating", unit="model"):
        codes = cache.array(
            ["codes", trained.digest, samples, split, num_images],
            lambda t=trained: all_codes(t.model, data, split, num_images),
        )
        found = most_activating(codes, num_shown)
        shown = found["image"].to_numpy(dtype=np.int64)
        found["label"] = None if labels is None else labels[shown]
        rows += [trained.columns | row for row in found.to_dict("records")]
        atoms = trained.model.decoder.atoms(largest_codes(codes)).numpy()
        index += [trained.columns | {"kind": ATOM, "unit": j, "rank": 0} for j in range(len(atoms))]
        places = found[["unit", "rank"]].to_dict("records")
        index += [trained.columns | {"kind": INPUT} | place for place in places]
        tiles += [as_pictures(atoms, data.image_shape), images[shown]]
        dead = int((codes == 0).all(0).sum())
        counts.append(trained.columns | {"units": codes.shape[1], "dead": dead})
        counts[-1] |= _purity(found, labels, num_shown)
    pictures = Pictures(pd.DataFrame(index), np.concatenate(tiles))
    return StudyResult(_table(rows, trained_models), {"summary": pd.DataFrame(counts)}, pictures)


def most_activating(codes: np.ndarray, count: int) -> pd.DataFrame:
    """The rows of ``codes`` (n, l) in which each component is largest in magnitude.

    Returns:
        ``unit``, ``rank`` (from 1), ``image`` (the row), ``code`` and ``active``; rows of equal
        codes in their order, and none where the component is 0.
    """
    sizes = np.abs(codes)
    order = np.argsort(-sizes, axis=0, kind="stable")[:count]
    active = (codes != 0).mean(0)
    return pd.DataFrame(
        [
            {
                "unit": unit,
                "rank": rank,
                "image": int(row),
                "code": float(codes[row, unit]),
                "active": float(active[unit]),
            }
            for unit in range(codes.shape[1])
            for rank, row in enumerate(order[:, unit], 1)
            if sizes[row, unit] > 0
        ],
        columns=["unit", "rank", "image", "code", "active"],
    )


def _images_and_labels(
    data: SplitDataModule, split: str, count: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (n, height, width[, 3]) on the scale of pixels, and labels where there are any."""
    pixels, labels = [], []
    for batch in batches(data, split, count):
        pixels.append(batch.to_pixels(batch.inputs))
        labels.append(batch.labels)
    images = as_pictures(torch.cat(pixels).numpy(), data.image_shape)
    return images, None if labels[0] is None else torch.cat(labels).numpy()


def _purity(found: pd.DataFrame, labels: np.ndarray | None, count: int) -> dict[str, float]:
    """The mean over components of the share of their images that has the commonest label.

    Those count that have all ``count`` images: one image alone has one label. Beside it stands what
    chance gives, by labels in a random order.
    """
    if labels is None:
        return {}
    whole = found.groupby("unit").filter(lambda own: len(own) == count)
    rows = whole["image"].to_numpy(dtype=np.int64)
    orders = {"purity": labels, "purity_by_chance": np.random.default_rng(0).permutation(labels)}
    return {
        name: float(
            pd.Series(order[rows])
            .groupby(whole["unit"].to_numpy())
            .agg(lambda own: own.value_counts(normalize=True).max())
            .mean()
        )
        for name, order in orders.items()
    }


def _table(rows: list[dict], trained_models: Sequence[TrainedModel]) -> pd.DataFrame:
    """All rows; with its columns also where every component of every model is dead."""
    names = ["unit", "rank", "image", "code", "active", "label"]
    return pd.DataFrame(rows, columns=[*trained_models[0].columns, *names])
