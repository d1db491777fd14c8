r"""Denoising (Table 1, Figs. 7 and 8 of the paper).

Gaussian noise of standard deviation σ is added to the standardised input. A model encodes and
decodes the noisy input, and the result is compared with the clean image. A seed fixes the noise of
each image, for every model and every baseline.

The baselines are scikit-image's total variation, wavelet and non-local means denoising, with
settings chosen on validation images. Four references tell what a PSNR is worth: the mean image, the
zero code (a standardised image of 0, which for patches is their clean local mean), the noisy image
clipped to the range of pixels, and the PCA-Wiener filter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.batch import Batch
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import picture_shape
from sparse_lightning.metrics import image_psnr
from sparse_lightning.studies.coding import batches, codes_of, fingerprint, require_images
from sparse_lightning.studies.denoisers import BASELINES, PATCHES, choose_setting, denoise
from sparse_lightning.studies.epochs import of_half
from sparse_lightning.studies.references import PrincipalComponents
from sparse_lightning.studies.result_cache import ResultCache, Rows
from sparse_lightning.studies.study_result import Pictures, StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

MEAN_IMAGE, ZERO_CODE = "mean image", "zero code"
CLIPPED, WIENER = "clipped noisy", "PCA-Wiener"
CLEAN, RECONSTRUCTION, NOISY, DENOISED = "clean", "reconstruction", "noisy", "noisy, rebuilt"


def denoising(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    noise_levels: Sequence[float] = (1.0, 1.5),
    noise_seed: int = 0,
    num_images: int | None = None,
    num_peer_images: int = 100,
    num_shown: int = 10,
) -> StudyResult:
    """PSNR of reconstructions of clean and of noisy images.

    Args:
        trained_models: models of any families, λ and seeds.
        data: whose validation and test images are used.
        cache: of what has been measured already.
        noise_levels: σ, in units of the standardised input.
        noise_seed: fixes the noise, whatever the model.
        num_images: the first so many images of a split, None for all.
        num_peer_images: validation images that the baselines' settings are chosen on.
        num_shown: test images shown.

    Returns:
        ``table``: one row per model, σ and split (``val``, to choose λ by, and ``test``), with
        ``psnr_clean``, ``psnr_noisy`` and ``psnr_denoised`` in dB, the shares of ``zeros`` in
        the codes of clean images and ``zeros_noisy`` in those of noisy ones, and ``change``: what
        the last half of the epochs changed in psnr_denoised of test (NaN if unknown);
        ``baselines``: likewise for scikit-image, ``test`` alone; ``references``: likewise;
        ``best``: Table 1, see `best_denoisers`, and ``by_image``: whether each image has a
        normalisation of its own, that of the clean image; pictures of those models.
    """
    require_images(data, "denoising", grey=True)
    samples = fingerprint(data)
    rows = []
    settings = [samples, list(noise_levels), noise_seed, num_images]

    def measure(trained: TrainedModel, splits: Sequence[str] = ("val", "test")) -> Rows:
        return _measure(trained, data, splits, noise_levels, noise_seed, num_images)

    for trained in tqdm(trained_models, desc="denoising", unit="model"):
        own = [trained.digest, *settings]
        measured = cache.rows(["rebuilt from noise", *own], functools.partial(measure, trained))
        earlier = cache.rows(
            ["rebuilt from noise after half of the epochs", trained.columns["epochs"], *own],
            of_half(
                trained,
                lambda half, t=trained, own=measured: own if half is t else measure(half, ["test"]),
            ),
        )
        before = {(row["split"], row["noise"]): row["psnr_denoised"] for row in earlier}
        for row in measured:
            change = row["psnr_denoised"] - before.get((row["split"], row["noise"]), math.nan)
            rows.append(trained.columns | row | {"change": change})
    table = pd.DataFrame(rows)
    references = cache.rows(
        ["denoising references", *settings],
        lambda: _measure_references(data, noise_levels, noise_seed, num_images),
    )
    choices = {name: chosen_from for name, (_, chosen_from) in BASELINES.items()}
    baselines = cache.rows(
        ["denoising peers", *settings, num_peer_images, choices, PATCHES],
        lambda: _measure_baselines(data, noise_levels, noise_seed, num_images, num_peer_images),
    )
    best = best_denoisers(table).assign(by_image=_are_normalised_by_image(data))
    pictures = _pictures(trained_models, best, data, noise_seed, num_shown)
    more = {
        "best": best,
        # Earlier versions named the column otherwise, and their measurements are kept.
        "baselines": pd.DataFrame(baselines).rename(columns={"peer": "baseline"}),
        "references": pd.DataFrame(references),
    }
    return StudyResult(table, more, pictures)


def _are_normalised_by_image(data: SplitDataModule) -> bool:
    scale = next(batches(data, "test", 2)).scale
    return scale is not None and scale.ndim == 2 and len(scale) > 1


def noise_like(inputs: Tensor, level: float, seed: int, first: int = 0) -> Tensor:
    """Gaussian noise of standard deviation ``level`` for samples ``first``, ``first`` + 1, …

    Sample i gets the same noise in whatever batch it is, and for every level but for the scale.
    """
    rows = [
        torch.randn(inputs.shape[1], generator=torch.Generator().manual_seed(seed * 10**6 + i))
        for i in range(first, first + len(inputs))
    ]
    return level * torch.stack(rows)


def _noisy(data: SplitDataModule, split: str, level: float, seed: int, count: int | None):
    """Batches of a split with their noisy inputs."""
    first = 0
    for batch in batches(data, split, count):
        # The splits must not share their noise.
        own_seed = 2 * seed + (split == "test")
        yield batch, batch.inputs + noise_like(batch.inputs, level, own_seed, first)
        first += len(batch.inputs)


def _measure(
    trained: TrainedModel,
    data: SplitDataModule,
    splits: Sequence[str],
    noise_levels: Sequence[float],
    seed: int,
    count: int | None,
) -> Rows:
    rows = []
    for split in splits:
        for level in noise_levels:
            found = [
                _of_batch(trained, batch, noisy)
                for batch, noisy in _noisy(data, split, level, seed, count)
            ]
            means = {name: float(torch.cat([f[name] for f in found]).mean()) for name in found[0]}
            rows.append({"split": split, "noise": level} | means)
    return rows


@torch.no_grad()
def _of_batch(trained: TrainedModel, batch: Batch, noisy: Tensor) -> dict[str, Tensor]:
    """Each image's PSNR and share of zeros, (n,) each."""
    clean_codes, noisy_codes = (codes_of(trained.model, x) for x in (batch.inputs, noisy))
    return {
        "psnr_clean": _psnr(batch, trained.model.decode(clean_codes)),
        "psnr_noisy": _psnr(batch, noisy),
        "psnr_denoised": _psnr(batch, trained.model.decode(noisy_codes)),
        "zeros": (clean_codes == 0).float().mean(1),
        "zeros_noisy": (noisy_codes == 0).float().mean(1),
    }


def _psnr(batch: Batch, inputs: Tensor) -> Tensor:
    return image_psnr(batch.to_pixels(inputs), batch.to_pixels(batch.inputs))


def _measure_references(
    data: SplitDataModule, noise_levels: Sequence[float], seed: int, count: int | None
) -> list[dict]:
    components = PrincipalComponents.of(data)
    rows = []
    for level in noise_levels:
        psnr = {name: [] for name in (MEAN_IMAGE, ZERO_CODE, CLIPPED, WIENER)}
        for batch, noisy in _noisy(data, "test", level, seed, count):
            psnr[MEAN_IMAGE].append(_psnr(batch, components.rebuilt(noisy, 0)))
            psnr[ZERO_CODE].append(_psnr(batch, torch.zeros_like(noisy)))
            clipped = batch.to_pixels(noisy).clamp(0, 1)
            psnr[CLIPPED].append(image_psnr(clipped, batch.to_pixels(batch.inputs)))
            psnr[WIENER].append(_psnr(batch, components.denoised(noisy, level)))
        rows += [
            {"reference": name, "noise": level, "psnr_denoised": float(torch.cat(values).mean())}
            for name, values in psnr.items()
        ]
    return rows


def _measure_baselines(
    data: SplitDataModule,
    noise_levels: Sequence[float],
    seed: int,
    count: int | None,
    num_validation: int,
) -> list[dict]:
    rows = []
    for level in noise_levels:
        validation = list(_noisy(data, "val", level, seed, num_validation))
        for name in tqdm(BASELINES, desc=f"baselines at noise {level:g}", unit="baseline"):
            setting = choose_setting(name, validation, level, picture_shape(data.image_shape))
            before, after = [], []
            for batch, noisy in _noisy(data, "test", level, seed, count):
                before.append(_psnr(batch, noisy))
                cleaned = denoise(name, noisy, level, setting, picture_shape(data.image_shape))
                after.append(_psnr(batch, cleaned))
            row = {"baseline": name, "noise": level, "split": "test", "setting": setting}
            means = {
                "psnr_noisy": torch.cat(before).mean(),
                "psnr_denoised": torch.cat(after).mean(),
            }
            rows.append(row | {name: float(mean) for name, mean in means.items()})
    return rows


def best_denoisers(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1: for each family and noise the λ of highest validation PSNR, measured on test.

    Returns:
        Columns noise, family, sparsity_weight, and the means over seeds of each PSNR in dB and of
        the shares of zeros, psnr_denoised_std, seeds, ``psnr_denoised_val`` (of validation images),
        ``epochs`` (of the shortest run), ``change``: what the last half of the epochs changed in
        psnr_denoised, in dB, NaN if unknown; and ``at_end``: whether λ is the smallest or the
        largest of several that the family has, so that another might be better still.
    """
    keys = ["noise", "family", "sparsity_weight"]
    columns = ["psnr_clean", "psnr_noisy", "psnr_denoised", "zeros", "zeros_noisy"]
    of_split = {split: rows.groupby(keys)[columns] for split, rows in table.groupby("split")}
    runs = table.query("split == 'test'").groupby(keys)
    chosen = of_split["val"].mean()["psnr_denoised"].groupby(["noise", "family"]).idxmax()
    test = (
        of_split["test"]
        .mean()
        .assign(
            psnr_denoised_std=of_split["test"].std()["psnr_denoised"],
            seeds=of_split["test"].size(),
            psnr_denoised_val=of_split["val"].mean()["psnr_denoised"],
            epochs=runs["epochs"].agg(lambda epochs: epochs.min(skipna=False)),
            change=runs["change"].agg(lambda changes: changes.mean(skipna=False)),
        )
    )
    best = test.loc[chosen.tolist()].reset_index()
    ends = table.groupby("family")["sparsity_weight"].agg(["min", "max"]).loc[best["family"]]
    weights = best["sparsity_weight"].to_numpy()
    is_end = (weights[:, None] == ends.to_numpy()).sum(1) == 1
    return best.assign(at_end=is_end)


@torch.no_grad()
def _pictures(
    trained_models: Sequence[TrainedModel],
    best: pd.DataFrame,
    data: SplitDataModule,
    seed: int,
    count: int,
) -> Pictures | None:
    """Strips of each family's best model, of those whose weights are there."""
    index, pixels = [], []
    models = sorted(
        (trained for trained in trained_models if trained.has_weights),
        key=lambda trained: trained.columns["seed"],
    )
    for row in best.to_dict("records"):
        kind = {key: row[key] for key in ("family", "sparsity_weight")}
        trained = next((t for t in models if kind.items() <= t.columns.items()), None)
        if trained is None:
            continue
        batch, noisy = next(iter(_noisy(data, "test", row["noise"], seed, count)))
        shown = {
            CLEAN: batch.inputs,
            RECONSTRUCTION: trained.model(batch.inputs),
            NOISY: noisy,
            DENOISED: trained.model(noisy),
        }
        for name, inputs in shown.items():
            caption = {"noise": row["noise"], **kind}
            index += [caption | {"row": name, "image": i} for i in range(len(inputs))]
            pixels.append(batch.to_pixels(inputs).reshape(-1, *picture_shape(data.image_shape)))
    return Pictures.of(index, [tiles.numpy() for tiles in pixels])
