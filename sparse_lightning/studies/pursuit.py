"""Test images coded by orthogonal matching pursuit, for the study of regret.

With the dictionary of another method, pursuit shows how well classical sparse coding rebuilds the
data. With the dictionary of a model it shows what the l1 penalty costs, which shrinks every active
component. Pursuit takes as many atoms as the model's own codes have on average, and fits their
weights by least squares. Its codes have signs.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.decoders import Decoder, LinearDecoder
from sparse_lightning.studies.classics import KSVD, ClassicSettings, fitted_dictionary, pursued
from sparse_lightning.studies.coding import (
    ReconstructionQuality,
    all_inputs,
    batches,
    fingerprint,
)
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.trained_models import TrainedModel

MODEL = ["data", "family", "sparsity_weight", "seed", "run"]


def of_classics(
    num_atoms: int,
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None,
    settings: ClassicSettings | None,
) -> pd.DataFrame:
    """Dictionaries of other methods.

    Args:
        num_atoms: l, of each dictionary.
        data: whose training images are fitted, and whose test images are coded.
        cache: of what has been measured already.
        num_images: the first so many test images, None for all.
        settings: of the methods, None for none.

    Returns:
        Columns method, active (atoms that a code may use), psnr in dB or r2, zeros.

    Warns:
        UserWarning: the methods are left out, since there are fewer training samples than atoms.
    """

    @functools.cache
    def train() -> np.ndarray:
        return all_inputs(data, "train", settings.num_images)

    @functools.cache
    def atoms(method: str, num_active: int) -> np.ndarray:
        return fitted_dictionary(method, train(), num_atoms, num_active, settings)

    methods = [] if settings is None else settings.installed()
    if methods and len(train()) < num_atoms:
        warnings.warn(
            f"{' and '.join(methods)} are left out: they begin with {num_atoms} training samples, "
            f"and have {len(train())} (study.compute.classics.num_images at most).",
            stacklevel=2,
        )
        methods = []
    rows = []
    for method in methods:
        for number in settings.num_active:
            key = ["classics", method, num_atoms, number]
            key += [fingerprint(data), num_images, settings.key()]
            # Online dictionary learning has a weight in place of a number, and is fitted once.
            of_fit = number if method == KSVD else 0
            measured = cache.rows(
                key,
                lambda m=method, k=of_fit, n=number: [_point(atoms(m, k), n, data, num_images)],
            )
            rows += [{"method": method} | row for row in measured]
    # A table without rows needs a column to be written and read.
    return pd.DataFrame(rows, columns=None if rows else ["method"])


def of_models(
    trained_models: Sequence[TrainedModel],
    own_points: pd.DataFrame,
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None,
    most_active: int,
) -> pd.DataFrame:
    """Dictionaries of models with a linear decoder.

    Args:
        trained_models: of any decoders.
        own_points: ``zeros`` and ``code_dim`` of the own codes of each ``family`` and ``run``.
        data: whose test images are coded.
        cache: of what has been measured already.
        num_images: the first so many test images, None for all.
        most_active: models whose codes have more active components on average are left out.

    Returns:
        Columns of the model, active, psnr in dB or r2, zeros.
    """
    own, rows = own_points.set_index(["family", "run"]), []
    for trained in trained_models:
        point = own.loc[(trained.columns["family"], trained.columns["run"]), :]
        number = round((1 - point["zeros"]) * point["code_dim"])
        if not 1 <= number <= most_active:
            continue
        key = ["pursuit", trained.digest, fingerprint(data), num_images, number]
        if trained.settings.get("model.decoder.has_bias"):
            key += ["less the bias"]
        measured = cache.rows(
            key, lambda t=trained, k=number: _points_of(t.model.decoder, k, data, num_images)
        )
        rows += [{name: trained.columns[name] for name in MODEL} | row for row in measured]
    return pd.DataFrame(rows, columns=None if rows else MODEL)


def _points_of(
    decoder: Decoder, num_active: int, data: SplitDataModule, num_images: int | None
) -> list[dict]:
    """The one point of a dictionary, and none of a decoder that has no dictionary."""
    if not isinstance(decoder, LinearDecoder):
        return []
    with torch.no_grad():
        bias = decoder(torch.zeros(1, decoder.code_dim, dtype=decoder.weight.dtype)).numpy()
    return [_point(decoder.atoms().numpy(), num_active, data, num_images, bias)]


def _point(
    atoms: np.ndarray,
    num_active: int,
    data: SplitDataModule,
    num_images: int | None,
    bias: np.ndarray | float = 0.0,
) -> dict:
    """What pursuit with k of the atoms (l, d), beside a bias (1, d), makes of the test images."""
    quality, zeros = ReconstructionQuality(data), []
    for batch in batches(data, "test", num_images):
        codes = pursued(batch.inputs.numpy() - bias, atoms, num_active)
        rebuilt = torch.from_numpy(codes @ atoms + bias).to(batch.inputs.dtype)
        quality.update(batch, rebuilt)
        zeros.append((codes == 0).mean(1))
    return {
        "active": num_active,
        **quality.compute(),
        "zeros": float(np.concatenate(zeros).mean()),
    }
