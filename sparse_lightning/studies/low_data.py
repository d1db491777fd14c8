"""Classification with few labels (Fig. 9 of the paper).

A linear classifier learns from the codes of 1, 2, … labelled samples per class. The models that
give the codes have seen all images without labels. Labels are drawn by seed, equally for every
method.

Beside the families stand classifiers of pixels: a linear one; LISTA with a linear layer, trained
from scratch; the nearest neighbours; and a linear one on as many principal components as there are
code components.

There are three arms:

- With validation labels: the error on the validation set chooses the settings of each method, such
  as a classifier's penalty and a family's λ.
- Without validation labels: every linear classifier has one penalty, and each family has the λ
  whose codes are nearest to a share of zeros. Methods that need validation are left out.
- The protocol of the paper's authors, on MNIST as a whole (`authors_protocol`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError
from sparse_lightning.files import digest
from sparse_lightning.studies.authors_protocol import (
    AdamProtocol,
    has_authors_split,
    in_authors_order,
    linear_by_adam,
    lista_by_adam,
)
from sparse_lightning.studies.classifiers import ScratchSettings
from sparse_lightning.studies.coding import all_codes, all_inputs, all_labels, fingerprint
from sparse_lightning.studies.epochs import of_half
from sparse_lightning.studies.labelled import (
    ALL,
    SPLITS,
    Labelled,
    Method,
    chosen,
    classify,
    first_chosen,
    require_enough,
)
from sparse_lightning.studies.pixel_classifiers import (
    Penalties,
    linear,
    linear_baselines,
    other_baselines,
    scaled,
)
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import TrainedModel

VALIDATED, UNVALIDATED = "validation labels", "no validation labels"
AUTHORS = "authors' protocol"


class Arm(NamedTuple):
    """One way to compare methods.

    Attributes:
        labelled: which samples are.
        on_codes: from a model's digest, and a function that gives its codes, to the method that
            classifies them.
        baselines: methods that see the inputs, by name.
    """

    labelled: Labelled
    on_codes: Callable[[str, Callable[[], dict[str, np.ndarray]]], Method]
    baselines: dict[str, Method]


def low_data(
    trained_models: Sequence[TrainedModel],
    data: SplitDataModule,
    cache: ResultCache,
    labels_per_class: Sequence[int | str] = (1, 2, 5, 10, 20, 50, 100, ALL),
    num_draws: Sequence[int] = (100, 100, 100, 100, 20, 20, 20, 1),
    scratch_draws: int = 10,
    change_draws: int = 10,
    inverse_penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
    patience: int | None = 2,
    fixed_inverse_penalty: float = 1.0,
    fixed_zeros: float = 0.9,
    num_neighbours: Sequence[int] = (1, 3, 5, 10),
    pca_dim: int = 128,
    lista: Mapping[str, Any] | None = None,
    authors: Mapping[str, Any] | None = None,
) -> StudyResult:
    """Test error against the number of labels.

    Args:
        trained_models: models of any families, λ and seeds.
        data: with labels.
        cache: of what has been measured already.
        labels_per_class: labelled samples of each class, or ``all``.
        num_draws: of the labels, for each of them, by the seeds 0, 1, …; of all labels there is
            one.
        scratch_draws: of methods that begin at random, which begin anew with each draw.
        change_draws: of them, by which it is told what the last half of the epochs changed; of all
            labels nothing is.
        inverse_penalties: C of `LogisticRegression`, to choose from. Features are divided by one
            number, their root mean square over the training set. C weighs more where features are
            more: 784 pixels have 6 times the squared norm of 128 code components.
        patience: values of C in a row that may be no better, see `logistic_regression`.
        fixed_inverse_penalty: C in the arm without validation labels.
        fixed_zeros: share of zeros that λ is chosen by there.
        num_neighbours: to choose from.
        pca_dim: principal components.
        lista: arguments of `ScratchSettings`.
        authors: arguments of `AdamProtocol`, for the third arm.

    Returns:
        ``table``: one row per ``arm``, method, model, number of labels and draw, with the errors
        ``val_error``, ``top1`` and ``top3`` (0 to 1), of some draws ``top1_before`` (of the model
        after half of the epochs), and the ``zeros`` of a family's validation codes; ``summary``:
        for each method and number of labels one λ, see `summary`.

    Raises:
        SettingError: data without labels, fewer samples of a class than are to be drawn, not one
            number of draws for each number of labels.
    """
    if len(labels_per_class) != len(num_draws):
        raise SettingError(
            f"study.compute.num_draws={list(num_draws)} must have one number for each of "
            f"labels_per_class={list(labels_per_class)}: make them equally long."
        )
    draws = {str(count): number for count, number in zip(labels_per_class, num_draws)}
    labels = {split: all_labels(data, split) for split in SPLITS}
    require_enough(labels["train"], draws)
    samples = digest([fingerprint(data), *(found.tolist() for found in labels.values())])
    inputs = {split: all_inputs(data, split) for split in SPLITS}
    scratch, protocol = ScratchSettings(**(lista or {})), AdamProtocol(**(authors or {}))
    penalties = {
        VALIDATED: Penalties(tuple(inverse_penalties), patience),
        UNVALIDATED: Penalties((fixed_inverse_penalty,), None),
    }
    ours = Labelled(labels, draws, chosen)
    arms = {
        name: Arm(
            ours,
            functools.partial(_linear_on, penalties=penalties[name]),
            linear_baselines(inputs, penalties[name], pca_dim),
        )
        for name in penalties
    }
    arms[VALIDATED].baselines.update(
        other_baselines(inputs, tuple(num_neighbours), scratch, scratch_draws)
    )
    if has_authors_split(data):
        arms[AUTHORS] = _authors_arm(inputs, labels, draws, data, protocol, scratch, scratch_draws)

    rows = []
    codes = functools.partial(_codes, data=data, samples=samples, cache=cache)
    for trained in tqdm(trained_models, desc="codes classified", unit="model"):
        known = trained.columns | {"method": trained.columns["family"]}
        known["zeros"] = _zeros(trained, codes, samples, cache)
        for name, arm in arms.items():
            found = _classify_codes(trained, arm, codes, cache, samples, change_draws)
            rows += [known | {"arm": name} | row for row in found]
    methods = [(name, arm, *named) for name, arm in arms.items() for named in arm.baselines.items()]
    for arm_name, arm, name, method in tqdm(methods, desc="inputs classified", unit="method"):
        found = classify(method, arm.labelled, cache, samples)
        rows += [{"data": data.title, "arm": arm_name, "method": name} | row for row in found]
    table = pd.DataFrame(rows)
    return StudyResult(table, {"summary": summary(table, fixed_zeros)})


def _classify_codes(
    trained: TrainedModel,
    arm: Arm,
    codes: Callable[[TrainedModel], dict[str, np.ndarray]],
    cache: ResultCache,
    samples: str,
    draws: int,
) -> list[dict]:
    """Rows of a model's codes for every draw.

    Of the first few draws they have ``top1_before``, the error with the codes of the model after
    half of the epochs.
    """

    def method_of(model: TrainedModel) -> Method:
        return arm.on_codes(model.digest, functools.partial(codes, model))

    method, of_arm = method_of(trained), arm.labelled
    few = {count: min(number, draws) for count, number in of_arm.draws.items() if count != ALL}

    def measure(half: TrainedModel) -> list[dict]:
        return classify(method_of(half), of_arm._replace(draws=few), cache, samples)

    key = ["low_data after half of the epochs", method.settings, samples, few]
    key += [trained.columns["epochs"]]
    before = {
        (row["labels_per_class"], row["label_seed"]): row["top1"]
        for row in cache.rows(key, of_half(trained, measure))
    }
    return [
        row | {"top1_before": before.get((row["labels_per_class"], row["label_seed"]), math.nan)}
        for row in classify(method, of_arm, cache, samples)
    ]


def _linear_on(
    digest_of_model: str, codes: Callable[[], dict[str, np.ndarray]], penalties: Penalties
) -> Method:
    classifier = functools.partial(linear, penalties=penalties)
    return Method(classifier, lambda: scaled(codes()), [digest_of_model, *penalties])


def _authors_arm(
    inputs: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    draws: dict[str, int],
    data: SplitDataModule,
    protocol: AdamProtocol,
    scratch: ScratchSettings,
    scratch_draws: int,
) -> Arm:
    """The protocol of the paper's authors, with one draw of each number of labels."""
    ordered = functools.partial(in_authors_order, positions=data.positions)
    dims = {"code_dim": scratch.code_dim, "num_layers": scratch.num_layers}
    pixels = functools.cache(lambda: ordered(inputs))
    own = [AUTHORS, asdict(protocol)]
    by_adam = functools.partial(linear_by_adam, settings=protocol)
    lista = functools.partial(lista_by_adam, settings=protocol, **dims)
    return Arm(
        Labelled(ordered(labels), dict.fromkeys(draws, 1), first_chosen),
        lambda model, codes: Method(by_adam, lambda: ordered(codes()), [model, *own]),
        {
            "linear on raw": Method(by_adam, pixels, ["raw", *own], own_draws=scratch_draws),
            "LISTA + linear on raw": Method(
                lista, pixels, ["LISTA", *own, dims], own_draws=scratch_draws
            ),
        },
    )


def _zeros(
    trained: TrainedModel,
    codes: Callable[[TrainedModel], dict[str, np.ndarray]],
    samples: str,
    cache: ResultCache,
) -> float:
    """Share of zeros of a model's validation codes."""

    def measure() -> list[dict]:
        return [{"zeros": float((codes(trained)["val"] == 0).mean())}]

    return cache.rows(["zeros of validation codes", trained.digest, samples], measure)[0]["zeros"]


def _codes(
    trained: TrainedModel, data: SplitDataModule, samples: str, cache: ResultCache
) -> dict[str, np.ndarray]:
    """Of each split."""
    return {
        split: cache.array(
            ["codes", trained.digest, samples, split, None],
            lambda split=split: all_codes(trained.model, data, split),
        )
        for split in SPLITS
    }


def summary(table: pd.DataFrame, fixed_zeros: float) -> pd.DataFrame:
    """Each method at one λ, for each arm and number of labels.

    With validation labels, and by the authors' protocol, it is the λ of lowest validation error,
    without them that whose codes have a share of zeros nearest to ``fixed_zeros``, by the factor
    between active shares.

    Draws of the labels are shared by all methods, and are averaged within a model seed: the spread
    is that over model seeds.

    Returns:
        Columns arm, method, labels_per_class, labels, sparsity_weight and zeros (NaN for pixels),
        the means of val_error, top1 and top3, their standard deviations top1_std and top3_std over
        model seeds (NaN for one), ``model_seeds`` (infinite for a method that has none; for one
        that begins at random, how often it began), ``draws``, ``epochs`` (of the shortest run;
        infinite for pixels) and ``change``: what the last half of the epochs changed in top1, the
        mean over model seeds; NaN where that of a seed is unknown.
    """
    keys = ["arm", "method", "labels", "labels_per_class", "sparsity_weight"]
    errors = ["val_error", "top1", "top3", "zeros"]
    # Pixels have none of these, and grouping would drop their rows.
    known = table.reindex(
        columns=table.columns.union(["sparsity_weight", "seed", "epochs", "zeros", "top1_before"])
    )
    known["change"] = known["top1"] - known["top1_before"]
    of_seed = known.groupby([*keys, "seed"], dropna=False)
    per_seed = of_seed[[*errors, "change"]].mean()
    per_seed = per_seed.assign(draws=of_seed.size(), epochs=of_seed["epochs"].min())
    grouped = per_seed.reset_index().groupby(keys, dropna=False)
    seeds = grouped["seed"].count()
    result = grouped[errors].mean().join(grouped[["top1", "top3"]].std().add_suffix("_std"))
    result = result.assign(
        model_seeds=seeds.where(seeds > 0, np.inf),
        draws=grouped["draws"].min(),
        epochs=grouped["epochs"].agg(lambda epochs: epochs.min(skipna=False)),
        change=grouped["change"].agg(lambda changes: changes.mean(skipna=False)),
    ).reset_index()
    result["epochs"] = result["epochs"].where(result["sparsity_weight"].notna(), np.inf)
    # As curves are read off: equal steps of this logarithm are equal steps of sparsity.
    active = np.log((1 - result["zeros"]).clip(lower=np.finfo(float).tiny))
    distance = (active - np.log(1 - fixed_zeros)).abs().fillna(0.0)
    rank = result["val_error"].where(result["arm"] != UNVALIDATED, distance)
    best = rank.groupby([result[name] for name in ("arm", "method", "labels_per_class")]).idxmin()
    return result.loc[best].sort_values(["arm", "labels", "method"]).reset_index(drop=True)
