"""What judges share: samples of values over seeds, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word
from sparse_lightning.studies.study_result import StudyResult

T = TypeVar("T")

ABSENT = Sample(math.nan, math.nan, 0, math.nan, math.nan)


def least_epochs(result: StudyResult, rules: Rules) -> int:
    """That make a model of these data evidence."""
    return of_title(rules.least_epochs, result.data, 0)


def of_title(by_title: Mapping[str, T], title: str, default: T) -> T:
    """The value whose key a title begins with; it may go on with the name of a folder."""
    return next((value for key, value in by_title.items() if title.startswith(key)), default)


def solvers(result: StudyResult) -> dict[str, frozenset[str]]:
    """What has found the codes in the trainings of each family."""
    table = result.table
    return table.groupby("family")["solver"].agg(frozenset).to_dict() if "solver" in table else {}


def lacks_of_choice(result: StudyResult, rules: Rules) -> dict[str, str]:
    """By family what it lacks, where too few λ to choose from have enough seeds."""
    table, least = result.table, rules.least_weights
    if not {"family", "sparsity_weight", "seed"} <= set(table):
        return {}
    seeds = table.groupby(["family", "sparsity_weight"])["seed"].nunique()
    numbers = seeds.ge(rules.least_seeds).groupby("family").sum()
    return {
        family: f"λ to choose from (it has {number} of {least})"
        for family, number in numbers.items()
        if number < least
    }


def over_seeds(
    values: pd.Series, epochs: float, change: float = 0.0, solvers: Iterable[str] = ()
) -> Sample:
    """A value that each model seed has once; what the last half of the epochs changed in it."""
    # Rounding makes a small deviation of equal values, which would count as a spread.
    is_equal = values.count() > 1 and np.ptp(values) <= 1e-12 * values.abs().max()
    deviation = 0.0 if is_equal else values.std()
    return Sample(
        values.mean(), deviation, values.count(), change, epochs, solvers=frozenset(solvers)
    )


def ends_of_weights(
    result: StudyResult, rules: Rules, families: Sequence[str]
) -> tuple[dict[str, tuple[pd.DataFrame, pd.DataFrame]], list[Finding]]:
    """Of each family its models at the two λ of the rules, and what is missing."""
    summary, ends, missing = with_penalty(result), {}, []
    weights_of = of_title(rules.ends_of_weights, result.data, {})
    for family in families:
        weights = weights_of.get(family, ())
        models = [
            summary[(summary["family"] == family) & np.isclose(summary["sparsity_weight"], weight)]
            for weight in weights
        ]
        if len(models) != 2:
            missing.append(Finding(Word.OPEN, f"{family}: missing the two λ to compare"))
        elif any(found.empty for found in models):
            lacking = [w for w, found in zip(weights, models) if found.empty]
            told = " and ".join(f"{weight:g}" for weight in lacking)
            missing.append(Finding(Word.OPEN, f"{family}: missing λ = {told}"))
        else:
            ends[family] = (models[0], models[1])
    return ends, missing


def with_penalty(result: StudyResult) -> pd.DataFrame:
    """The models with a penalty: without one codes are not sparse, and nothing is claimed."""
    return result.more["summary"].query("sparsity_weight > 0")


def weight_of(models: pd.DataFrame) -> float:
    """λ of models that share it."""
    return models["sparsity_weight"].iloc[0]


def of_models(models: pd.DataFrame, column: str, factor: float = 1.0) -> Sample:
    """A column of a family's models at one λ, times a factor, with its change."""
    values, change = factor * models[column], factor * change_of(models, column)
    return over_seeds(values, epochs_of(models), change, models.get("solver", ()))


def change_of(models: pd.DataFrame, column: str) -> float:
    """Of the mean over seeds, by the last half of the epochs; NaN if that of a seed is unknown."""
    return models[f"change_{column}"].mean(skipna=False)


def epochs_of(models: pd.DataFrame) -> float:
    """Those of the shortest run; NaN where those of a run are unknown."""
    return models["epochs"].min(skipna=False)
