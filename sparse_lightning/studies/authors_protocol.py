"""Classification with few labels, by the protocol of the paper's authors.

It differs from ours in each choice, and the choice may decide a comparison:

- the labelled samples are always the first n of each class of the authors' published split;
- features are not scaled;
- Adam trains a linear layer for a fixed number of epochs, so that few labels mean few steps;
- the weights of the last epoch count, and validation labels choose λ alone.

Models were trained on our split. They may have seen, without labels, images that are validation
images in the authors' split.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.encoders import LISTA
from sparse_lightning.studies.classifiers import Outcome, Split, network_scores, outcome


@dataclass(frozen=True)
class AdamProtocol:
    """How a network is trained from labels.

    Args:
        learning_rate: of Adam.
        epochs: over the labelled samples, however few.
        batch_size: samples in a step; the last step of an epoch takes what is left.
    """

    learning_rate: float = 1e-3
    epochs: int = 100
    batch_size: int = 250


def has_authors_split(data: SplitDataModule) -> bool:
    """Whether training and validation images are, together, MNIST's training file."""
    positions = [data.positions.get(split, np.empty(0, int)) for split in ("train", "val")]
    whole = np.sort(np.concatenate(positions))
    return data.title == "MNIST" and np.array_equal(whole, np.arange(60_000))


def in_authors_order(
    values: dict[str, np.ndarray], positions: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Training and validation rows as the authors split and ordered them; test rows as they are.

    Args:
        values: rows of ``train``, ``val`` and ``test``.
        positions: of the rows of ``train`` and ``val`` in MNIST's training file.
    """
    of_file = np.concatenate([values["train"], values["val"]])
    row_of = np.empty(len(of_file), dtype=int)
    row_of[np.concatenate([positions["train"], positions["val"]])] = np.arange(len(of_file))
    with (resources.files("sparse_lightning.studies") / "mnist_split.npz").open("rb") as file:
        split = np.load(file, allow_pickle=False)
        ordered = {name: of_file[row_of[split[name]]] for name in ("train", "val")}
    return ordered | {"test": values["test"]}


def first_of_each_class(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of the first ``per_class`` samples of each class."""
    return np.sort(
        np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in np.unique(labels)])
    )


def linear_by_adam(
    train: Split, splits: dict[str, Split], seed: int, settings: AdamProtocol
) -> Outcome:
    """A linear layer on features as they are."""
    layer = _seeded(seed, lambda: nn.Linear(train.features.shape[1], _classes(splits)))
    return _trained(layer, train, splits, seed, settings)


def lista_by_adam(
    train: Split,
    splits: dict[str, Split],
    seed: int,
    settings: AdamProtocol,
    code_dim: int,
    num_layers: int,
) -> Outcome:
    """LISTA and a linear layer, end to end from labels."""

    def network() -> nn.Module:
        encoder = LISTA(train.features.shape[1], code_dim, num_layers)
        return nn.Sequential(encoder, nn.Linear(code_dim, _classes(splits)))

    return _trained(_seeded(seed, network), train, splits, seed, settings)


def _classes(splits: dict[str, Split]) -> int:
    return int(max(split.labels.max() for split in splits.values())) + 1


def _seeded(seed: int, make) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _trained(
    network: nn.Module, train: Split, splits: dict[str, Split], seed: int, settings: AdamProtocol
) -> Outcome:
    inputs, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    order = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(settings.batch_size):
            loss = cross_entropy(network(inputs[rows]), labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
    val, test = (network_scores(network, splits[name].features) for name in ("val", "test"))
    return outcome(settings.learning_rate, val, test, splits)
