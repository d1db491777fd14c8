"""What atoms and filters look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sparse_lightning.paper.judges.evidence import (
    ABSENT,
    least_epochs,
    of_title,
    over_seeds,
    solvers,
)
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word, above, together
from sparse_lightning.studies.study_result import StudyResult

FREQUENCY, FILTERS = "median_mean_frequency", "median_filter_frequency"


def atoms_grow(result: StudyResult, rules: Rules) -> Finding:
    """Extent and likeness to images of atoms, at the ends of a family's λ."""
    ends, findings = _ends(result, rules, rules.families_with_strokes)
    parts = (("mean_extent", rules.growth), ("median_likeness", 1.0))
    for column, factor in parts:
        samples = {
            family: (_sample(large, column), _sample(small, column, factor))
            for family, (small, large) in ends.items()
        }
        judged = [sample for pair in samples.values() for sample in pair]
        for family, (ours, theirs) in samples.items():
            small, large = map(_weight, ends[family])
            name = f"{family}, {column.replace('_', ' ')} at λ = {large:g}"
            rival = {f"{factor:g} × that at {small:g}": theirs}
            number = len(parts) * len(rules.families_with_strokes)
            findings.append(_above(name, ours, rival, number, result, rules, judged))
    return together(findings)


def atoms_are_finer_at_small_weights(result: StudyResult, rules: Rules) -> Finding:
    """Mean frequency of atoms, at the ends of a family's λ."""
    ends, findings = _ends(result, rules, rules.families_with_strokes)
    samples = {
        family: [_sample(models, FREQUENCY) for models in pair] for family, pair in ends.items()
    }
    judged = [sample for pair in samples.values() for sample in pair]
    for family, (ours, theirs) in samples.items():
        small, large = map(_weight, ends[family])
        name, rival = f"{family}, mean frequency at λ = {small:g}", {f"that at {large:g}": theirs}
        number = len(rules.families_with_strokes)
        findings.append(_above(name, ours, rival, number, result, rules, judged))
    return together(findings)


def filters_are_noisier(result: StudyResult, rules: Rules) -> Finding:
    """Mean frequency of WDL's encoder filters, at both ends of λ, and its slope between them.

    Noise has a higher mean frequency than what is smooth. Rivals are taken at the λ nearest to
    WDL's: frequencies change along λ, and families are trained over different ranges of it. The
    slope is per unit of ln λ, since the nearest λ are not equally far apart.
    """
    ends, missing = _ends(result, rules, ["wdl"])
    if missing:
        return missing[0]
    weights, summary = [_weight(models) for models in ends["wdl"]], _sparse(result)
    pairs = {
        family: [
            _nearest(summary[summary["family"] == family], weight, rules.largest_weight_ratio)
            for weight in weights
        ]
        for family in ("wdl", *rules.rivals_of_filters)
    }
    findings = []
    parts = (
        (f"λ = {weights[0]:g}", lambda pair: _sample(pair[0], FILTERS)),
        (f"λ = {weights[1]:g}", lambda pair: _sample(pair[1], FILTERS)),
        (f"λ = {weights[0]:g} to {weights[1]:g}, per unit of ln λ", lambda pair: _slope(*pair)),
    )
    solver_of = solvers(result)
    for name, of in parts:
        samples = {
            family: replace(of(pair), solver=solver_of.get(family))
            for family, pair in pairs.items()
        }
        ours = samples.pop("wdl")
        title, number = f"mean frequency of WDL's filters at {name}", len(parts) * len(samples)
        findings.append(_above(title, ours, samples, number, result, rules))
    return together(findings)


def _nearest(models: pd.DataFrame, weight: float, largest_ratio: float) -> pd.DataFrame:
    """The models whose λ is nearest to a weight, none where that is further than by a factor."""
    distance = np.log(models["sparsity_weight"] / weight).abs()
    return models[(distance == distance.min()) & (distance <= np.log(largest_ratio))]


def _slope(small: pd.DataFrame, large: pd.DataFrame) -> Sample:
    """Of filters over ln λ, seed by seed; absent where one of two different λ is."""
    if small.empty or large.empty or _weight(small) == _weight(large):
        return ABSENT
    span = np.log(_weight(large) / _weight(small))
    gained = large.set_index("seed")[FILTERS] - small.set_index("seed")[FILTERS]
    change = _change(large, FILTERS) - _change(small, FILTERS)
    return over_seeds(gained / span, min(_epochs(small), _epochs(large)), change / span)


def _ends(
    result: StudyResult, rules: Rules, families: Sequence[str]
) -> tuple[dict[str, tuple[pd.DataFrame, pd.DataFrame]], list[Finding]]:
    """Of each family its models at the two λ of the rules, and what is missing."""
    summary, ends, missing = _sparse(result), {}, []
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


def _sparse(result: StudyResult) -> pd.DataFrame:
    """The models with a penalty: without one codes are not sparse, and nothing is claimed."""
    return result.more["summary"].query("sparsity_weight > 0")


def _weight(models: pd.DataFrame) -> float:
    return models["sparsity_weight"].iloc[0]


def _sample(models: pd.DataFrame, column: str, factor: float = 1.0) -> Sample:
    return over_seeds(factor * models[column], _epochs(models), factor * _change(models, column))


def _change(models: pd.DataFrame, column: str) -> float:
    """Of the mean over seeds, by the last half of the epochs; NaN if that of a seed is unknown."""
    return models[f"change_{column}"].mean(skipna=False)


def _epochs(models: pd.DataFrame) -> float:
    """Those of the shortest run; NaN where those of a run are unknown."""
    return models["epochs"].min(skipna=False)


def _above(
    name: str,
    ours: Sample,
    rivals: dict[str, Sample],
    comparisons: int,
    result: StudyResult,
    rules: Rules,
    judged: Sequence[Sample] = (),
) -> Finding:
    return above(
        name,
        ours,
        rivals,
        rules,
        judged=judged,
        least_epochs=least_epochs(result, rules),
        comparisons=comparisons,
        unit="",
    )


def atoms_are_gabors(result: StudyResult, rules: Rules) -> Finding:
    """Share of Gabor-like atoms, against a share that is asked for and scrambled atoms."""
    summary = _sparse(result)
    groups = summary[summary["family"].isin(rules.families_with_strokes)].groupby(
        ["family", "sparsity_weight"]
    )
    samples = {
        key: [_sample(models, column) for column in ("gabor_like", "gabor_like_scrambled")]
        for key, models in groups
    }
    judged = [ours for ours, _ in samples.values()]
    missing = [name for name in rules.families_with_strokes if name not in set(summary["family"])]
    findings = [Finding(Word.OPEN, f"{family}: missing") for family in missing]
    for (family, weight), (ours, scrambled) in samples.items():
        asked = Sample.fixed(rules.gabor_share)
        rivals = {f"{rules.gabor_share:g}": asked, "scrambled atoms": scrambled}
        number = len(rivals) * (len(groups) + len(missing))
        name = f"{family} at λ = {weight:g}"
        findings.append(_above(name, ours, rivals, number, result, rules, judged))
    return together(findings)
