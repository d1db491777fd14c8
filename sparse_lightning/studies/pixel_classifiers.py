"""Classifiers of pixels, which stand beside the codes of models where labels are few."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from sparse_lightning.studies.classifiers import (
    Outcome,
    ScratchSettings,
    Split,
    lista_from_scratch,
    logistic_regression,
    nearest_neighbours,
)
from sparse_lightning.studies.labelled import Method


class Penalties(NamedTuple):
    """How the penalty of `logistic_regression` is chosen."""

    inverse: tuple[float, ...]
    patience: int | None


def linear_baselines(
    inputs: dict[str, np.ndarray], penalties: Penalties, pca_dim: int
) -> dict[str, Method]:
    """Linear classifiers that see pixels, by name."""
    classifier = functools.partial(linear, penalties=penalties)
    return {
        "linear on raw": Method(classifier, lambda: scaled(inputs), ["raw", *penalties]),
        "linear on PCA": Method(
            classifier, lambda: scaled(_principal(inputs, pca_dim)), ["PCA", *penalties, pca_dim]
        ),
    }


def other_baselines(
    inputs: dict[str, np.ndarray],
    num_neighbours: tuple[int, ...],
    scratch: ScratchSettings,
    scratch_draws: int,
) -> dict[str, Method]:
    """Methods that see pixels and choose by validation labels, by name."""
    return {
        "LISTA + linear on raw": Method(
            lambda train, splits, seed: lista_from_scratch(train, splits, scratch, seed),
            lambda: inputs,
            ["LISTA", asdict(scratch)],
            own_draws=scratch_draws,
        ),
        "nearest neighbours on raw": Method(
            lambda train, splits, seed: nearest_neighbours(train, splits, num_neighbours),
            lambda: inputs,
            ["neighbours", num_neighbours],
        ),
    }


def linear(train: Split, splits: dict[str, Split], seed: int, penalties: Penalties) -> Outcome:
    return logistic_regression(train, splits, *penalties)


def scaled(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Divide by the root mean square over the training set, one number."""
    size = float(np.sqrt(np.mean(features["train"] ** 2))) or 1.0
    return {split: values / np.float32(size) for split, values in features.items()}


def _principal(inputs: dict[str, np.ndarray], dim: int) -> dict[str, np.ndarray]:
    """Principal components of the training images, whose labels it does not see."""
    pca = PCA(min(dim, *inputs["train"].shape), random_state=0).fit(inputs["train"])
    return {split: pca.transform(values).astype(np.float32) for split, values in inputs.items()}
