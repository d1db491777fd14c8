r"""What the code components stand for (Figs. 2 to 5 and 11 to 14 of the paper).

The atom of component j is :math:`D(s_j e_j) - D(0)`, with :math:`s_j` the code of the component
that is largest in magnitude on validation images: the response of a non-linear decoder depends on
it.
Encoder filters are the rows of U. Each atom's orientation, frequency and size are those of the
Gabor function nearest to it. Atoms of colour images are shown in colour, and measured by their mean
over channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.pictures import as_pictures, grey
from sparse_lightning.studies.coding import (
    all_codes,
    all_inputs,
    fingerprint,
    largest_codes,
    require_images,
)
from sparse_lightning.studies.epochs import of_half, with_changes
from sparse_lightning.studies.gabor import GaborFit, are_gabor_like, fit_gabor, phase_scrambled
from sparse_lightning.studies.orientation import mean_frequency, orientation_share
from sparse_lightning.studies.result_cache import ResultCache, Rows
from sparse_lightning.studies.strokes import extents, likeness
from sparse_lightning.studies.study_result import Pictures, StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

ATOM, FILTER = "atom", "encoder filter"
SCRAMBLED = "scrambled_"
KEYS = ["data", "family", "solver", "sparsity_weight", "seed", "run"]
# Of a model's atoms in use; what the last half of training changed in them is told.
MEASURES = [
    "oriented", "gabor_like", "gabor_like_scrambled", "median_extent", "median_likeness",
    "median_mean_frequency", "mean_extent",
]  # fmt: skip


def features(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    num_images: int | None = 2000,
    gabor_threshold: float = 0.5,
    envelope_width: float = 4.0,
    least_cycles: float = 1.0,
    gabors: bool = True,
    scramble_seed: int = 0,
    smoothing: float = 1.0,
    part_level: float = 0.35,
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
        envelope_width, least_cycles: see `are_gabor_like`.
        gabors: whether to fit them at all.
        scramble_seed: of the phases of scrambled atoms.
        smoothing, part_level: see `extents` and `likeness`.
        least_active: fraction of images from which on an atom counts as used. One that is used
            less has hardly been trained: it looks as it was drawn at the start, and what can be
            measured of it says nothing.

    Returns:
        ``table``: one row per atom: ``scale`` (the magnitude of s_j), ``active`` (fraction of
        images), ``used``, ``orientation_share``, ``mean_frequency`` (cycles per pixel), ``extent``,
        ``likeness`` (to the nearest image), the fields of `GaborFit`, also of the scrambled atom,
        ``gabor_like`` and ``gabor_like_scrambled``;
        ``summary``: one row per model, see `summary` and `with_changes`; pictures of atoms and
        filters.
    """
    require_images(data, "features")
    samples = fingerprint(data)
    images = grey(as_pictures(all_inputs(data, "val", num_images), data.image_shape))
    rows, earlier, index, pixels = [], [], [], []
    setting = [samples, num_images, scramble_seed if gabors else None, smoothing, part_level]
    rule = [images.shape[1:], gabor_threshold, envelope_width, least_cycles]

    def drawn_by(trained: TrainedModel) -> _Drawn:
        return _drawn(trained, data, samples, num_images, cache)

    def measured(trained: TrainedModel) -> Rows:
        return _measure(drawn_by(trained), images, *setting[2:])

    def in_short(trained: TrainedModel) -> Rows:
        atoms = [trained.columns | row for row in measured(trained)]
        models = summary(_flagged(atoms, least_active, rule if gabors else None))
        return models[[name for name in models if name in MEASURES]].to_dict("records")

    for trained in tqdm(trained_models, desc="features", unit="model"):
        own = functools.partial(measured, trained)
        found = cache.rows(["atoms and filters", trained.digest, *setting], own)
        rows += [trained.columns | row for row in found]
        key = ["atoms after half of the epochs", trained.digest, trained.columns["epochs"]]
        key += [*setting, min(images.shape[1:]), *rule[1:], least_active]
        half = cache.rows(key, of_half(trained, in_short))
        earlier += [trained.columns | row for row in half]
        if trained.has_weights:
            for kind, tiles in drawn_by(trained).tiles.items():
                index += [trained.columns | {"kind": kind, "unit": j} for j in range(len(tiles))]
                pixels.append(tiles)
    table = _flagged(rows, least_active, rule if gabors else None)
    before = pd.DataFrame(earlier, columns=[*KEYS, *MEASURES])
    models = with_changes(summary(table), before, KEYS, MEASURES)
    return StudyResult(table, {"summary": models}, Pictures.of(index, pixels))


def _flagged(rows: Rows, least_active: float, gabor_rule: Sequence | None) -> pd.DataFrame:
    """Atoms with what is judged of each: whether it is used, and whether it is Gabor-like."""
    table = pd.DataFrame(rows)
    table["used"] = table["active"] >= least_active
    if gabor_rule is not None:
        table["gabor_like"] = are_gabor_like(table, *gabor_rule)
        names = {SCRAMBLED + field.name: field.name for field in fields(GaborFit)}
        scrambled = table[list(names)].rename(columns=names)
        table["gabor_like_scrambled"] = are_gabor_like(scrambled, *gabor_rule)
    return table


class _Drawn(NamedTuple):
    """Codes of validation images (n, l), and tiles by their kind."""

    codes: np.ndarray
    tiles: dict[str, np.ndarray]


def _drawn(
    trained: TrainedModel,
    data: SplitDataModule,
    samples: str,
    num_images: int | None,
    cache: ResultCache,
) -> _Drawn:
    codes = cache.array(
        ["codes", trained.digest, samples, "val", num_images],
        lambda: all_codes(trained.model, data, "val", num_images),
    )
    tiles = {ATOM: _tiles(trained.model.decoder.atoms(largest_codes(codes)), data)}
    encoder = trained.model.encoder
    filters = None if encoder is None else encoder.filters()
    if filters is not None:
        tiles[FILTER] = _tiles(filters, data)
    return _Drawn(codes, tiles)


def _tiles(vectors: torch.Tensor, data: SplitDataModule) -> np.ndarray:
    return as_pictures(vectors.numpy(), data.image_shape)


def _measure(
    drawn: _Drawn,
    images: np.ndarray,
    scramble_seed: int | None,
    smoothing: float,
    part_level: float,
) -> list[dict]:
    """What is measured of each atom; without a seed no Gabor function is fitted."""
    codes, atoms = drawn.codes, grey(drawn.tiles[ATOM])
    columns = {
        "scale": np.abs(codes).max(0),
        "active": (codes != 0).mean(0),
        "orientation_share": orientation_share(torch.from_numpy(atoms)),
        "mean_frequency": mean_frequency(torch.from_numpy(atoms)),
        "extent": extents(atoms, smoothing, part_level),
        "likeness": likeness(atoms, images, smoothing),
    }
    rows = [
        {"unit": unit} | {name: float(values[unit]) for name, values in columns.items()}
        for unit in range(len(atoms))
    ]
    if scramble_seed is not None:
        generator = np.random.default_rng(scramble_seed)
        for row, atom in zip(rows, atoms):
            row |= _fitted(atom, "") | _fitted(phase_scrambled(atom, generator), SCRAMBLED)
    return rows


def _fitted(tile: np.ndarray, prefix: str) -> dict[str, float]:
    return {prefix + name: float(value) for name, value in asdict(fit_gabor(tile)).items()}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model.

    Returns:
        The shares of its atoms that are ``dead`` (never active) and ``used``; and of those that
        are used the shares ``oriented``, ``gabor_like`` and ``gabor_like_scrambled``, and the
        medians ``median_extent``, ``median_likeness`` and ``median_mean_frequency``, all missing
        where none is. ``mean_extent`` is there besides: an extent is a whole number of pixels, and
        its median may be equal for all seeds. ``epochs`` are those of the run.
    """
    flags = table.assign(oriented=table["orientation_share"] >= 0.5, dead=table["active"] == 0)
    used = flags[flags["used"]].groupby(KEYS)
    gabors = [name for name in ("gabor_like", "gabor_like_scrambled") if name in table]
    shares = used[["oriented", *gabors]].mean()
    medians = used[["extent", "likeness", "mean_frequency"]].median().add_prefix("median_")
    mean = used["extent"].mean().rename("mean_extent")
    models = flags.groupby(KEYS)
    epochs = models["epochs"].first()
    of_all = models[["dead", "used"]].mean()
    return of_all.join([epochs, shares, medians, mean]).reset_index()
