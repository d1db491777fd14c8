"""Classifiers that learn from few labels, with free settings chosen on validation data.

Each fits the chosen training samples, and returns scores (n, classes) for validation and test
samples. The class of the highest score is the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn.functional import cross_entropy

from sparse_lightning.encoders import LISTA


class Split(NamedTuple):
    """Features (n, k) and labels (n,) of a set of samples."""

    features: np.ndarray
    labels: np.ndarray


class Outcome(NamedTuple):
    """A classifier's choice, and what it scored.

    Attributes:
        setting: the one chosen on validation data.
        val_error: of that setting, top-1, 0 to 1.
        top1, top3: error on test data, 0 to 1.
    """

    setting: float
    val_error: float
    top1: float
    top3: float


def top_error(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of samples whose label is not among the k highest scores.

    Args:
        scores: (n, classes). Of equal scores the lower class counts as higher.
        labels: (n,).
        k: how many guesses.
    """
    guesses = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(1 - (guesses == labels[:, None]).any(1).mean())


def outcome(setting: float, val: np.ndarray, test: np.ndarray, splits: dict[str, Split]) -> Outcome:
    """Errors of scores on validation and test samples."""
    test_labels = splits["test"].labels
    return Outcome(
        setting,
        top_error(val, splits["val"].labels, 1),
        top_error(test, test_labels, 1),
        top_error(test, test_labels, 3),
    )


# Its products are small: threads would wait for one another longer than they work.
@threadpool_limits.wrap(limits=1)
def logistic_regression(
    train: Split,
    splits: dict[str, Split],
    inverse_penalties: Sequence[float],
    patience: int | None = None,
) -> Outcome:
    """Multinomial logistic regression with an l2 penalty.

    Args:
        train: the labelled samples.
        splits: ``val`` and ``test``.
        inverse_penalties: values of C to choose from; the smallest of equals is taken.
        patience: how many values in a row, from the strongest penalty down, may be no better than
            the best before them, at least 1; None tries all. With many labels the weakest
            penalties take nearly all of the time.
    """
    model = LogisticRegression(max_iter=3000, warm_start=True)
    best, in_vain = None, 0
    # From the strongest penalty down, each from the solution before it.
    for value in sorted(inverse_penalties):
        model.set_params(C=value)
        model.fit(*train)
        val = _in_columns(model, splits["val"].features)
        error = top_error(val, splits["val"].labels, 1)
        if best is None or error < best[0]:
            best, in_vain = (error, value, val, _in_columns(model, splits["test"].features)), 0
            continue
        in_vain += 1
        if in_vain == patience:
            break
    _, value, val, test = best
    return outcome(value, val, test, splits)


def _in_columns(model: LogisticRegression, features: np.ndarray) -> np.ndarray:
    """Scores with the column of each class at its own number."""
    scores = model.decision_function(features)
    if scores.ndim == 1:  # Of two classes there is one score, that of the second.
        scores = np.stack([-scores, scores], axis=1)
    placed = np.full((len(features), int(model.classes_.max()) + 1), -np.inf)
    placed[:, model.classes_.astype(int)] = scores
    return placed


def nearest_neighbours(
    train: Split, splits: dict[str, Split], num_neighbours: Sequence[int]
) -> Outcome:
    """Votes of the nearest samples, each weighing one over its distance.

    Args:
        train: the labelled samples.
        splits: ``val`` and ``test``.
        num_neighbours: how many may vote, to choose from; of fewer samples all do. Between
            classes that get no vote, the votes of the largest number decide: guesses beyond the
            first one need them.
    """
    counts = sorted({min(count, len(train.labels)) for count in num_neighbours})
    index = NearestNeighbors(n_neighbors=counts[-1], algorithm="brute").fit(train.features)
    near = {split: index.kneighbors(splits[split].features) for split in ("val", "test")}
    found = []
    for count in counts:
        val, test = (
            _votes(*near[split], train.labels, count)
            + 1e-9 * _votes(*near[split], train.labels, counts[-1])
            for split in ("val", "test")
        )
        found.append(outcome(count, val, test, splits))
    return min(found, key=lambda result: result.val_error)


def _votes(distance: np.ndarray, index: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Each class's share of the votes of the nearest ``count``, (n, classes)."""
    votes = np.zeros((len(distance), int(labels.max()) + 1))
    weight = 1 / np.maximum(distance[:, :count], 1e-12)
    rows = np.repeat(np.arange(len(distance)), count)
    np.add.at(votes, (rows, labels[index[:, :count]].ravel()), weight.ravel())
    return votes / votes.sum(1, keepdims=True)


@dataclass(frozen=True)
class ScratchSettings:
    """LISTA with a linear layer on top, trained from labels alone.

    Args:
        code_dim, num_layers: of LISTA.
        learning_rates: of Adam, to choose from.
        batch_size: samples in a step; all of them where there are fewer.
        steps: of training.
        check_every: steps between looks at validation data; the best of them is kept.
        patience: looks without a better one after which training stops.
    """

    code_dim: int = 128
    num_layers: int = 3
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    batch_size: int = 250
    steps: int = 3000
    check_every: int = 50
    patience: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))


def lista_from_scratch(
    train: Split, splits: dict[str, Split], settings: ScratchSettings, seed: int
) -> Outcome:
    """Train LISTA and a linear layer end to end, stopped early on validation data."""
    found = [_train_lista(train, splits, settings, rate, seed) for rate in settings.learning_rates]
    return min(found, key=lambda result: result.val_error)


def _train_lista(
    train: Split, splits: dict[str, Split], settings: ScratchSettings, rate: float, seed: int
) -> Outcome:
    inputs, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = LISTA(inputs.shape[1], settings.code_dim, settings.num_layers)
        network = nn.Sequential(encoder, nn.Linear(settings.code_dim, int(labels.max()) + 1))
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    order = torch.Generator().manual_seed(seed)
    best, best_step = None, 0
    for step in range(1, settings.steps + 1):
        rows = torch.randperm(len(inputs), generator=order)[: settings.batch_size]
        loss = cross_entropy(network(inputs[rows]), labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % settings.check_every == 0 or step == settings.steps:
            val = network_scores(network, splits["val"].features)
            error = top_error(val, splits["val"].labels, 1)
            if best is None or error < best[0]:
                best, best_step = (
                    (error, val, network_scores(network, splits["test"].features)),
                    step,
                )
            elif step - best_step >= settings.patience * settings.check_every:
                break
    _, val, test = best
    return outcome(rate, val, test, splits)


@torch.no_grad()
def network_scores(network: nn.Module, features: np.ndarray) -> np.ndarray:
    """A network's outputs (n, classes) for features (n, k)."""
    return network(torch.from_numpy(features)).numpy()
