"""Draws of labelled samples, and what classifies them.

A draw is fixed by a seed, equally for every method. The fewer labels of a seed are among its more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from sparse_lightning.errors import SettingError
from sparse_lightning.studies.authors_protocol import first_of_each_class
from sparse_lightning.studies.classifiers import Outcome, Split
from sparse_lightning.studies.result_cache import ResultCache

ALL = "all"
SPLITS = ("train", "val", "test")


class Labelled(NamedTuple):
    """Which samples are labelled.

    Attributes:
        labels: of each split, in the order in which a method gives features.
        draws: how many, for each number of labels per class.
        chosen: from training labels, labels per class and a seed to the rows of a draw.
    """

    labels: dict[str, np.ndarray]
    draws: dict[str, int]
    chosen: Callable[[np.ndarray, str, int], np.ndarray]


class Method(NamedTuple):
    """A way to classify.

    Attributes:
        classifier: from training samples, splits and a seed to an outcome.
        features: gives the features of each split; only called where something is not known yet.
        settings: what tells it from others, beside the data.
        own_draws: how many, where the method begins at random and anew with each draw.
    """

    classifier: Callable[[Split, dict[str, Split], int], Outcome]
    features: Callable[[], dict[str, np.ndarray]]
    settings: list
    own_draws: int | None = None


def draw_labels(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of ``per_class`` samples of each class, the fewer among the more for one seed.

    Raises:
        SettingError: a class has fewer.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    smallest = min(map(len, chosen))
    if smallest < per_class:
        raise SettingError(
            f"labels_per_class has {per_class}, and some class has {smallest} training samples: "
            "take fewer labels, or more of data.num_train."
        )
    return np.sort(np.concatenate(chosen))


def require_enough(labels: np.ndarray, draws: dict[str, int]) -> None:
    """Raise `SettingError` where a class has fewer training samples than are to be drawn."""
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    possible = {count: n for count, n in draws.items() if count == ALL or int(count) <= smallest}
    if possible != draws:
        raise SettingError(
            f"study.compute.labels_per_class={_told(draws)} has more than {smallest}, the training "
            f"samples of the smallest class: set study.compute.labels_per_class={_told(possible)} "
            f"study.compute.num_draws={_told(possible.values())}."
        )


def _told(values: Iterable) -> str:
    return f"[{','.join(map(str, values))}]"


def chosen(labels: np.ndarray, per_class: str, seed: int) -> np.ndarray:
    """Training samples of a draw; ``all`` are the same for every seed."""
    return np.arange(len(labels)) if per_class == ALL else draw_labels(labels, int(per_class), seed)


def first_chosen(labels: np.ndarray, per_class: str, seed: int) -> np.ndarray:
    """The first samples of each class, whatever the seed."""
    every = per_class == ALL
    return np.arange(len(labels)) if every else first_of_each_class(labels, int(per_class))


def classify(method: Method, labelled: Labelled, cache: ResultCache, samples: str) -> list[dict]:
    """Rows of a method's outcome for every draw."""
    labels, draws = labelled.labels, labelled.draws

    @functools.cache
    def splits() -> dict[str, Split]:
        features = method.features()
        return {split: Split(features[split], labels[split]) for split in SPLITS}

    def outcomes(per_class: str, number: int) -> list[dict]:
        rows = []
        for seed in range(number):
            rows_drawn = labelled.chosen(labels["train"], per_class, seed)
            train = Split(*(values[rows_drawn] for values in splits()["train"]))
            drawn = {"label_seed": seed, "labels": len(rows_drawn)}
            # What begins at random begins so once for each draw.
            drawn |= {} if method.own_draws is None else {"seed": seed}
            rows.append(drawn | method.classifier(train, splits(), seed)._asdict())
        return rows

    rows = []
    for per_class, number in draws.items():
        number = number if method.own_draws is None else method.own_draws
        key = ["low_data, draws", method.settings, samples, per_class, number]
        found = cache.rows(key, functools.partial(outcomes, per_class, number))
        rows += [{"labels_per_class": per_class} | row for row in found]
    return rows
