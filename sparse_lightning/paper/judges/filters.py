"""What encoder filters look like."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sparse_lightning.paper.judges.evidence import (
    ABSENT,
    change_of,
    ends_of_weights,
    epochs_of,
    least_epochs,
    of_models,
    over_seeds,
    weight_of,
    with_penalty,
)
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, above, together
from sparse_lightning.studies.study_result import StudyResult


def filters_are_noisier(result: StudyResult, rules: Rules, column: str = "noise") -> Finding:
    """Noise of WDL's encoder filters, at both ends of λ, and its slope between them.

    Rivals are taken at the λ nearest to WDL's: noise changes along λ, and families are trained over
    different ranges of it. The slope is per unit of ln λ, since the nearest λ are not equally far
    apart.

    Args:
        result: of the study ``filters``.
        rules: constants.
        column: ``noise`` of all filters, or ``noise_in_use`` of those of units in use.
    """
    ends, missing = ends_of_weights(result, rules, ["wdl"])
    if missing:
        return missing[0]
    weights, summary = [weight_of(models) for models in ends["wdl"]], with_penalty(result)
    pairs = {
        family: [
            _nearest(summary[summary["family"] == family], weight, rules.largest_weight_ratio)
            for weight in weights
        ]
        for family in ("wdl", *rules.rivals_of_filters)
    }
    small, large = weights
    parts = (
        (f"λ = {small:g}", lambda pair: of_models(pair[0], column)),
        (f"λ = {large:g}", lambda pair: of_models(pair[1], column)),
        (f"λ = {small:g} to {large:g}, per unit of ln λ", lambda pair: _slope(*pair, column)),
    )
    findings = []
    for name, of in parts:
        samples = {family: of(pair) for family, pair in pairs.items()}
        ours = samples.pop("wdl")
        finding = above(
            f"noise of WDL's filters at {name}",
            ours,
            samples,
            rules,
            least_epochs=least_epochs(result, rules),
            comparisons=len(parts) * len(samples),
            unit="",
        )
        findings.append(finding)
    return together(findings)


def _nearest(models: pd.DataFrame, weight: float, largest_ratio: float) -> pd.DataFrame:
    """The models whose λ is nearest to a weight, none where that is further than by a factor."""
    distance = np.log(models["sparsity_weight"] / weight).abs()
    return models[(distance == distance.min()) & (distance <= np.log(largest_ratio))]


def _slope(small: pd.DataFrame, large: pd.DataFrame, column: str) -> Sample:
    """Of filters over ln λ, seed by seed; absent where one of two different λ is."""
    if small.empty or large.empty or weight_of(small) == weight_of(large):
        return ABSENT
    span = np.log(weight_of(large) / weight_of(small))
    gained = large.set_index("seed")[column] - small.set_index("seed")[column]
    change = change_of(large, column) - change_of(small, column)
    epochs, both = min(epochs_of(small), epochs_of(large)), pd.concat([small, large])
    return over_seeds(gained / span, epochs, change / span, both.get("solver", ()))
