"""The authors' own protocol for few labels: their split, their order, their training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny_study import TinyData, TinyModel

from sparse_lightning.data.mnist import MNIST
from sparse_lightning.studies import low_data as study
from sparse_lightning.studies.authors_protocol import (
    AdamProtocol,
    first_of_each_class,
    has_authors_split,
    in_authors_order,
    linear_by_adam,
    lista_by_adam,
)
from sparse_lightning.studies.classifiers import Split
from sparse_lightning.studies.low_data import AUTHORS, low_data
from sparse_lightning.studies.result_cache import ResultCache

# Positions in MNIST's training file that the authors' published split begins with.
FIRST_TRAIN, FIRST_VAL = [20948, 56127, 40804], [10658, 20558, 59484]


def test_rows_are_put_into_the_authors_order_whatever_ours_is():
    ours = np.random.default_rng(0).permutation(60_000)
    positions = {"train": ours[:50_000], "val": ours[50_000:]}
    ordered = in_authors_order(positions | {"test": np.arange(5)}, positions)
    assert ordered["train"][:3].tolist() == FIRST_TRAIN
    assert ordered["val"][:3].tolist() == FIRST_VAL
    assert ordered["test"].tolist() == [0, 1, 2, 3, 4]
    together = np.concatenate([ordered["train"], ordered["val"]])
    assert (len(ordered["train"]), len(ordered["val"])) == (55_000, 5_000)
    assert np.array_equal(np.sort(together), np.arange(60_000))


def test_the_whole_of_mnist_has_their_split_and_a_part_has_not(mnist_root: Path):
    whole, part = MNIST(mnist_root), MNIST(mnist_root, num_train=1000)
    for data in (whole, part):
        data.prepare_data()
        data.setup()
    assert has_authors_split(whole)
    assert not has_authors_split(part)
    assert not has_authors_split(TinyData())


def test_the_first_of_each_class_are_labelled():
    labels = np.array([2, 0, 0, 1, 2, 2, 1, 0])
    assert first_of_each_class(labels, 1).tolist() == [0, 1, 3]
    assert first_of_each_class(labels, 2).tolist() == [0, 1, 2, 3, 4, 6]


def separable(count: int = 40) -> Split:
    labels = np.arange(count) % 2
    features = np.stack([labels * 2.0 - 1, np.ones(count)], 1).astype(np.float32)
    return Split(features, labels)


def test_steps_are_counted_by_epochs(monkeypatch):
    steps = []

    class Counting(torch.optim.Adam):
        def step(self, *args, **kwargs):
            steps.append(1)
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "Adam", Counting)
    train = separable()
    splits = {"val": train, "test": train}
    settings = AdamProtocol(learning_rate=0.05, epochs=30, batch_size=16)
    assert linear_by_adam(train, splits, 0, settings).top1 == 0
    assert len(steps) == 30 * 3, "40 samples are three steps of at most 16"


def test_features_are_not_scaled():
    # The start of the layer, and not its training, decides between features that are tiny.
    train = separable()
    tiny = Split(train.features * np.float32(1e-6), train.labels)
    settings = AdamProtocol(learning_rate=1e-3, epochs=1, batch_size=40)
    found = linear_by_adam(tiny, {"val": tiny, "test": tiny}, 0, settings)
    assert found.top1 == 0.5


def test_lista_is_trained_by_the_same_steps():
    train = separable()
    splits = {"val": train, "test": train}
    settings = AdamProtocol(learning_rate=0.05, epochs=30, batch_size=16)
    assert lista_by_adam(train, splits, 0, settings, code_dim=8, num_layers=2).top1 == 0


def test_the_arm_is_part_of_the_study_where_the_split_is_known(monkeypatch):
    monkeypatch.setattr(study, "has_authors_split", lambda data: True)
    monkeypatch.setattr(study, "in_authors_order", lambda values, positions: values)
    result = low_data(
        [TinyModel("sdl", seed=0), TinyModel("vdl", seed=1)], TinyData(), ResultCache(),
        labels_per_class=[1, "all"], num_draws=[3, 1], scratch_draws=2, pca_dim=4,
        lista={"code_dim": 8, "steps": 10, "check_every": 5, "learning_rates": [1e-2]},
        authors={"epochs": 3},
    )  # fmt: skip
    rows = result.table[result.table["arm"] == AUTHORS].groupby("method").size()
    # Their labels are given and not drawn; what begins at random begins twice.
    assert rows.to_dict() == {
        "sdl": 2, "vdl": 2, "linear on raw": 4, "LISTA + linear on raw": 4,
    }  # fmt: skip
    summary = result.more["summary"].query("arm == @AUTHORS and labels_per_class == '1'")
    # One beginning would have no spread, and count as certain.
    raw = summary.set_index("method").loc["linear on raw"]
    assert raw["model_seeds"] == 2
    assert raw["top1_std"] > 0
