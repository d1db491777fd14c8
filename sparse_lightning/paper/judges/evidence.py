"""What judges share: samples of values over seeds, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pandas as pd

from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.studies.study_result import StudyResult

T = TypeVar("T")

ABSENT = Sample(math.nan, math.nan, 0, math.nan, math.nan)


def least_epochs(result: StudyResult, rules: Rules) -> int:
    """That make a model of these data evidence."""
    return of_title(rules.least_epochs, result.data, 0)


def of_title(by_title: Mapping[str, T], title: str, default: T) -> T:
    """The value whose key a title begins with; it may go on with the name of a folder."""
    return next((value for key, value in by_title.items() if title.startswith(key)), default)


def solvers(result: StudyResult) -> dict[str, str]:
    """What has found the codes in the training of each family."""
    table = result.table
    return dict(zip(table["family"], table["solver"])) if "solver" in table else {}


def over_seeds(
    values: pd.Series, epochs: float, change: float = 0.0, solver: str | None = None
) -> Sample:
    """A value that each model seed has once; what the last half of the epochs changed in it."""
    # Rounding makes a small deviation of equal values, which would count as a spread.
    is_equal = values.count() > 1 and np.ptp(values) <= 1e-12 * values.abs().max()
    deviation = 0.0 if is_equal else values.std()
    return Sample(values.mean(), deviation, values.count(), change, epochs, solver=solver)
