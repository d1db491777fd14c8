r"""Regret: what a given sparsity costs in reconstruction (Fig. 6 of the paper).

Each model is a point (zeros, PSNR). The points of one family and seed, over λ, make a curve. PSNR
is read off the curve at given shares of zeros, so that families can be compared at equal sparsity.

For data that are not images R² takes the place of PSNR, under the name ``r2``.

Codes are also found by inference in place of the encoder. This shows the cost of amortisation: how
much is lost by predicting codes that could be optimised. That inference has γ = 0 and β = 0, so
that a code depends neither on the encoder nor on the other samples of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.quality import quality_of
from sparse_lightning.studies.classics import ClassicSettings
from sparse_lightning.studies.coding import (
    ReconstructionQuality,
    batches,
    codes_of,
    fingerprint,
)
from sparse_lightning.studies.epochs import validation_history
from sparse_lightning.studies.equal_sparsity import (
    CURVE,
    against_epochs,
    curves_at_zeros,
    last_doubling,
    over_seeds,
)
from sparse_lightning.studies.pursuit import of_classics, of_models
from sparse_lightning.studies.references import PrincipalComponents
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

ENCODER, INFERENCE = "encoder", "inference"
# Whose validation metrics stand for an epoch.
BEST, LAST = "best so far", "last"


def regret(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = None,
    at_zeros: Sequence[float] = (0.8, 0.9, 0.95),
    largest_gap: float = 2.5,
    num_components: Sequence[int] = (0, 2, 4, 8, 16, 32),
    classics: ClassicSettings | None = None,
    most_pursued: int = 0,
) -> StudyResult:
    """Test PSNR against zeros.

    Args:
        trained_models: models of any families, λ and seeds.
        data: whose test images are rebuilt.
        cache: of what has been measured already.
        num_images: the first so many test images, None for all.
        at_zeros: shares of zeros to interpolate the PSNR at.
        largest_gap: factor in active share that the neighbours of an interpolated value must be
            closer than.
        num_components: numbers of principal components that rebuild the images for reference; 0
            is the mean image.
        classics: dictionaries that other methods fit, with as many atoms as the models' codes have
            components; None for none.
        most_pursued: largest number of active components at which linear dictionaries of the
            models are coded by orthogonal matching pursuit as well; 0 for none.

    Returns:
        ``table``: one row per model and way of finding codes (``codes``: encoder or inference),
        with ``psnr`` in dB, ``zeros`` and ``dead_units``; ``at_zeros``: see `psnr_at_zeros`;
        ``epochs``: interpolated validation PSNR of each family after each epoch, by ``weights``:
        the best so far, which studies measure, or the last;
        ``models``: mean over ``seeds`` of each family and λ, of the codes that the family is judged
        by; ``amortisation``: mean loss of the encoder against inference for each family and λ;
        ``references``: PSNR of principal components; ``classics``: PSNR and zeros of each other
        method and number of active atoms; ``pursuit``: one row per model, with PSNR and zeros of
        orthogonal matching pursuit with as many atoms as its own codes have on average.
    """
    samples = fingerprint(data)
    rows = []
    for trained in tqdm(trained_models, desc="regret", unit="model"):
        key = ["regret, free inference", trained.digest, samples, num_images]
        measured = cache.rows(key, lambda t=trained: _measure(t, data, num_images))
        rows += [trained.columns | row for row in measured]
    table = pd.DataFrame(rows)
    references = cache.rows(
        ["regret references", samples, num_images, list(num_components)],
        lambda: _references(data, num_images, num_components),
    )
    curves = {
        weights: against_epochs(
            _histories(trained_models, of_best=weights == BEST), at_zeros, largest_gap
        )
        for weights in (BEST, LAST)
    }
    more = {
        "at_zeros": psnr_at_zeros(table, at_zeros, largest_gap, curves[BEST]),
        "epochs": pd.concat(
            [
                over_seeds(found, ["zeros", "family", "epochs"]).assign(weights=weights)
                for weights, found in curves.items()
            ],
            ignore_index=True,
        ),
        "models": models_in_short(table),
        "amortisation": amortisation(table),
        "references": pd.DataFrame(references),
        "classics": of_classics(int(table["code_dim"].max()), data, cache, num_images, classics),
        "pursuit": of_models(
            trained_models, own_codes(table), data, cache, num_images, most_pursued
        ),
    }
    if at_zeros and not more["at_zeros"][quality_of(table).name].notna().any():
        shares = ", ".join(f"{100 * at:g} %" for at in at_zeros)
        told = f"No curve reaches {shares} zeros: add models of other λ to compare at equal zeros."
        Console().print(told, soft_wrap=True, highlight=False)
    return StudyResult(table, more)


def _measure(trained: TrainedModel, data: SplitDataModule, num_images: int | None) -> list[dict]:
    model = trained.model
    ways = [] if model.encoder is None else [ENCODER]
    # Codes by inference are no codes of a sparse autoencoder.
    ways += [INFERENCE] if model.training_rule.infers else []
    return [_point(trained, data, num_images, way) for way in ways]


def _point(trained: TrainedModel, data: SplitDataModule, num_images: int | None, way: str) -> dict:
    quality, zeros, count = ReconstructionQuality(data), 0, 0
    active = torch.zeros(trained.model.decoder.code_dim, dtype=torch.bool)
    for batch in batches(data, "test", num_images):
        if way == INFERENCE:
            codes = trained.model.infer_alone(batch.inputs)
        else:
            codes = codes_of(trained.model, batch.inputs)
        rebuilt: Tensor = trained.model.decode(codes).detach()
        quality.update(batch, rebuilt)
        zeros += int((codes == 0).sum())
        count += codes.numel()
        active |= (codes != 0).any(0)
    return {
        "codes": way,
        **quality.compute(),
        "zeros": zeros / count,
        "dead_units": int((~active).sum()),
        "code_dim": len(active),
    }


def _references(
    data: SplitDataModule, num_images: int | None, num_components: Sequence[int]
) -> list[dict]:
    components = PrincipalComponents.of(data)
    meters = {number: ReconstructionQuality(data) for number in num_components}
    for batch in batches(data, "test", num_images):
        for number, quality in meters.items():
            quality.update(batch, components.rebuilt(batch.inputs, number))
    return [{"components": number, **quality.compute()} for number, quality in meters.items()]


def _histories(trained_models: Sequence[TrainedModel], of_best: bool) -> pd.DataFrame:
    """What the models' runs recorded of each epoch."""
    found = []
    for trained in trained_models:
        keys = {key: trained.columns[key] for key in (*CURVE, "sparsity_weight")}
        found.append(validation_history(trained, of_best).assign(**keys))
    return pd.concat([history for history in found if len(history)] or found, ignore_index=True)


def own_codes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the codes that a family is judged by: the encoder's where it has one."""
    has_encoder = table.groupby("family")["codes"].transform(lambda ways: ENCODER in set(ways))
    return table[(table["codes"] == ENCODER) | ~has_encoder]


def models_in_short(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of what a family's own codes rebuild, and of how sparse they are.

    Returns:
        Columns family, solver, sparsity_weight, psnr (dB) or r2, zeros, dead_units, seeds.
    """
    grouped = own_codes(table).groupby(["family", "solver", "sparsity_weight"])
    means = grouped[[quality_of(table).name, "zeros", "dead_units"]].mean()
    return means.assign(seeds=grouped.size()).reset_index()


def psnr_at_zeros(
    table: pd.DataFrame, at_zeros: Sequence[float], largest_gap: float, curves: pd.DataFrame
) -> pd.DataFrame:
    """Interpolated test PSNR of each family's curves, over seeds.

    Args:
        table: of the study.
        at_zeros: shares of zeros.
        largest_gap: see `interpolate`.
        curves: what `against_epochs` makes of the validation metrics.

    Returns:
        Columns zeros, family, psnr (mean over the seeds whose curve reaches there, in dB), std
        (unbiased; NaN for one seed), seeds, ``curves`` (of all seeds), ``epochs`` and ``change``:
        what the last doubling of epochs changed, see `last_doubling`.
    """
    found = curves_at_zeros(own_codes(table), at_zeros, largest_gap, CURVE)
    summary = over_seeds(found, ["zeros", "family"])
    return summary.merge(last_doubling(curves), on=["zeros", "family"], how="left")


def amortisation(table: pd.DataFrame) -> pd.DataFrame:
    """What the encoder loses against inference at γ = 0 and β = 0, mean over seeds.

    Returns:
        Columns family, sparsity_weight, psnr_loss (dB), more_zeros (fraction), seeds.
    """
    keys = ["family", "sparsity_weight", "seed", "run"]
    name = quality_of(table).name
    wide = table.pivot_table(index=keys, columns="codes", values=[name, "zeros"])
    wide = wide.reindex(columns=pd.MultiIndex.from_product([[name, "zeros"], [ENCODER, INFERENCE]]))
    lost = pd.DataFrame(
        {
            f"{name}_loss": wide[name][INFERENCE] - wide[name][ENCODER],
            "more_zeros": wide["zeros"][INFERENCE] - wide["zeros"][ENCODER],
        }
    ).dropna()
    grouped = lost.reset_index().groupby(["family", "sparsity_weight"])
    means = grouped[[f"{name}_loss", "more_zeros"]].mean()
    return means.assign(seeds=grouped.size()).reset_index()
