r"""What the code components stand for (Figs. 2 to 5 and 11 to 14 of the paper).

The atom of component j is :math:`D(s_j e_j) - D(0)`, with :math:`s_j` the largest value that the
component takes on validation images: the response of a non-linear decoder depends on it. Encoder
filters are the rows of U. Each atom's orientation, frequency and size are those of the Gabor
function nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.studies.coding import all_codes, fingerprint
from sparse_lightning.studies.gabor import fit_gabor
from sparse_lightning.studies.orientation import active_area, orientation_share
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import Pictures, StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

ATOM, FILTER = "atom", "encoder filter"


def features(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = 2000,
    gabor_threshold: float = 0.5,
    gabors: bool = True,
    least_active: float = 0.01,
) -> StudyResult:
    """Atoms and encoder filters, and what can be measured of them.

    Args:
        trained_models: models of any families, λ and seeds.
        data: whose validation images tell how large each component gets.
        cache: of what has been measured already.
        num_images: the first so many of them, None for all.
        gabor_threshold: share of an atom's energy that a Gabor function must explain for the
            atom to count as Gabor-like.
        gabors: whether to fit them at all.
        least_active: fraction of images from which on an atom counts as used. One that is used
            less has hardly been trained: it looks as it was drawn at the start, and what can be
            measured of it says nothing.

    Returns:
        ``table``: one row per atom: ``scale`` (s_j), ``active`` (fraction of images), ``used``,
        ``orientation_share``, ``active_area`` and the fields of `GaborFit`; ``summary``: one row
        per model, see `summary`; pictures of atoms and filters.
    """
    samples = fingerprint(data)
    rows, index, pixels = [], [], []
    for trained in tqdm(trained_models, desc="features", unit="model"):
        codes = cache.array(
            ["codes", trained.digest, samples, "val", num_images],
            lambda t=trained: all_codes(t.model, data, "val", num_images),
        )
        atoms = _tiles(trained.model.decoder.atoms(_scales(codes)), data)
        measured = cache.rows(
            ["features", trained.digest, samples, num_images, gabors],
            lambda c=codes, a=atoms: _measure(c, a, gabors),
        )
        rows += [trained.columns | row for row in measured]
        shown = {ATOM: atoms}
        if trained.model.encoder is not None:
            shown[FILTER] = _tiles(trained.model.encoder.filters(), data)
        for kind, tiles in shown.items():
            index += [trained.columns | {"kind": kind, "unit": j} for j in range(len(tiles))]
            pixels.append(tiles)
    table = pd.DataFrame(rows)
    table["used"] = table["active"] >= least_active
    if gabors:
        table["gabor_like"] = table["explained"] >= gabor_threshold
    pictures = Pictures(pd.DataFrame(index), np.concatenate(pixels))
    return StudyResult(table, {"summary": summary(table)}, pictures)


def _scales(codes: np.ndarray) -> torch.Tensor:
    largest = torch.from_numpy(codes).amax(0)
    # A component that is never active is shown at a scale of 1, to see what it would draw.
    return torch.where(largest > 0, largest, 1.0)


def _tiles(vectors: torch.Tensor, data: SplitDataModule) -> np.ndarray:
    return vectors.reshape(-1, *data.image_shape).numpy()


def _measure(codes: np.ndarray, atoms: np.ndarray, gabors: bool) -> list[dict]:
    active, largest = (codes > 0).mean(0), codes.max(0)
    tiles = torch.from_numpy(atoms)
    shares, areas = orientation_share(tiles), active_area(tiles)
    rows = []
    for unit, atom in enumerate(atoms):
        row = {
            "unit": unit,
            "scale": float(largest[unit]),
            "active": float(active[unit]),
            "orientation_share": float(shares[unit]),
            "active_area": float(areas[unit]),
        }
        if gabors:
            row |= {name: float(value) for name, value in asdict(fit_gabor(atom)).items()}
        rows.append(row)
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model.

    Returns:
        The shares of its atoms that are ``dead`` (never active) and ``used``; and of those that
        are used the shares ``oriented`` and ``gabor_like`` and the ``median_active_area``, all
        missing where none is.
    """
    keys = ["data", "family", "sparsity_weight", "seed", "run"]
    flags = table.assign(oriented=table["orientation_share"] >= 0.5, dead=table["active"] == 0)
    used = flags[flags["used"]].groupby(keys)
    shares = used[["oriented", *({"gabor_like"} & set(table.columns))]].mean()
    area = used["active_area"].median().rename("median_active_area")
    return flags.groupby(keys)[["dead", "used"]].mean().join([shares, area]).reset_index()
