r"""Regret: what a given sparsity costs in reconstruction (Fig. 6 of the paper).

Each model is a point (zeros, PSNR). Those of one family, over λ, make its curve, once for each
seed; where the curve crosses a given share of zeros its PSNR is read off by interpolation, so that
families can be compared at equal sparsity.

The same with inference in place of the encoder tells what amortisation costs: how much is lost by
predicting codes where they could be optimised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.metrics import ImagePSNR
from sparse_lightning.studies.coding import batches, codes_of, fingerprint
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

ENCODER, INFERENCE = "encoder", "inference"


def regret(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = None,
    at_zeros: Sequence[float] = (0.8, 0.9, 0.95),
) -> StudyResult:
    """Test PSNR against zeros.

    Args:
        trained_models: models of any families, λ and seeds.
        data: whose test images are rebuilt.
        cache: of what has been measured already.
        num_images: the first so many test images, None for all.
        at_zeros: shares of zeros to interpolate the PSNR at.

    Returns:
        ``table``: one row per model and way of finding codes (``codes``: encoder or inference),
        with ``psnr`` in dB and ``zeros``; ``at_zeros``: mean, standard deviation and number of
        seeds of the interpolated PSNR for each family; ``amortisation``: mean loss of the encoder
        against inference for each family and λ.
    """
    samples = fingerprint(data)
    rows = []
    for trained in tqdm(trained_models, desc="regret", unit="model"):
        key = ["regret", trained.digest, samples, num_images]
        measured = cache.rows(key, lambda t=trained: _measure(t, data, num_images))
        rows += [trained.columns | row for row in measured]
    table = pd.DataFrame(rows)
    more = {"at_zeros": psnr_at_zeros(table, at_zeros), "amortisation": amortisation(table)}
    return StudyResult(table, more)


def _measure(trained: TrainedModel, data: SplitDataModule, num_images: int | None) -> list[dict]:
    model = trained.model
    ways = [INFERENCE] if model.encoder is None else [ENCODER, INFERENCE]
    return [_point(trained, data, num_images, way) for way in ways]


def _point(trained: TrainedModel, data: SplitDataModule, num_images: int | None, way: str) -> dict:
    psnr, zeros, count = ImagePSNR(), 0, 0
    for batch in batches(data, "test", num_images):
        codes = codes_of(trained.model, batch.inputs, way == INFERENCE)
        rebuilt: Tensor = trained.model.decode(codes).detach()
        psnr.update(batch.squared_errors(rebuilt - batch.inputs))
        zeros += int((codes == 0).sum())
        count += codes.numel()
    return {"codes": way, "psnr": float(psnr.compute()["psnr"]), "zeros": zeros / count}


def own_codes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the codes that a family is judged by: the encoder's where it has one."""
    has_encoder = table.groupby("family")["codes"].transform(lambda ways: ENCODER in set(ways))
    return table[(table["codes"] == ENCODER) | ~has_encoder]


def interpolate(zeros: np.ndarray, psnr: np.ndarray, at: float) -> float:
    """PSNR at a share of zeros, linear between the points of a curve; NaN beyond its ends."""
    order = np.argsort(zeros)
    return float(np.interp(at, zeros[order], psnr[order], left=np.nan, right=np.nan))


def psnr_at_zeros(table: pd.DataFrame, at_zeros: Sequence[float]) -> pd.DataFrame:
    """Interpolated PSNR of each family's curves, over seeds.

    Returns:
        Columns family, zeros, psnr (mean over the seeds whose curve reaches there, in dB), std
        (unbiased; NaN for one seed), seeds.
    """
    rows = []
    for (family, seed), curve in own_codes(table).groupby(["family", "seed"]):
        points = curve.groupby("sparsity_weight")[["zeros", "psnr"]].mean()
        for at in at_zeros:
            value = interpolate(points["zeros"].to_numpy(), points["psnr"].to_numpy(), at)
            rows.append({"family": family, "seed": seed, "zeros": at, "psnr": value})
    grouped = pd.DataFrame(rows).groupby(["zeros", "family"])["psnr"]
    return grouped.agg(psnr="mean", std="std", seeds="count").reset_index()


def amortisation(table: pd.DataFrame) -> pd.DataFrame:
    """What the encoder loses against inference, mean over seeds.

    Returns:
        Columns family, sparsity_weight, psnr_loss (dB), more_zeros (fraction), seeds.
    """
    keys = ["family", "sparsity_weight", "seed", "run"]
    wide = table.pivot_table(index=keys, columns="codes", values=["psnr", "zeros"])
    wide = wide.reindex(
        columns=pd.MultiIndex.from_product([["psnr", "zeros"], [ENCODER, INFERENCE]])
    )
    lost = pd.DataFrame(
        {
            "psnr_loss": wide["psnr"][INFERENCE] - wide["psnr"][ENCODER],
            "more_zeros": wide["zeros"][INFERENCE] - wide["zeros"][ENCODER],
        }
    ).dropna()
    grouped = lost.reset_index().groupby(["family", "sparsity_weight"])
    means = grouped[["psnr_loss", "more_zeros"]].mean()
    return means.assign(seeds=grouped.size()).reset_index()
