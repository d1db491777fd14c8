"""What judges share: samples of values over seeds, and what is missing."""

from __future__ import annotations

import math

import pandas as pd

from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.studies.study_result import StudyResult

ABSENT = Sample(math.nan, math.nan, 0, math.nan, math.nan)


def least_epochs(result: StudyResult, rules: Rules) -> int:
    """That make a model of these data evidence: the number whose key the data's title begins with.

    A title may go on with the name of a folder.
    """
    least = rules.least_epochs.items()
    return max((epochs for title, epochs in least if result.data.startswith(title)), default=0)


def over_seeds(values: pd.Series, epochs: float, change: float = 0.0) -> Sample:
    """A value that each model seed has once; what the last half of the epochs changed in it."""
    # Rounding makes a small deviation of equal values, which would count as a spread.
    deviation = 0.0 if values.count() > 1 == values.nunique() else values.std()
    return Sample(values.mean(), deviation, values.count(), change, epochs)
