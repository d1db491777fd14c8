"""What atoms and filters look like."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sparse_lightning.paper.judges.evidence import ABSENT, least_epochs, over_seeds
from sparse_lightning.paper.statistics import Finding, Rules, Sample, Word, above, together
from sparse_lightning.studies.study_result import StudyResult

FREQUENCY, FILTERS = "median_mean_frequency", "median_filter_frequency"


def atoms_grow(result: StudyResult, rules: Rules) -> Finding:
    """Extent and likeness to images of atoms, at the smallest and the largest λ of a family."""
    findings, parts = [], (("mean_extent", rules.growth), ("median_likeness", 1.0))
    number = len(parts) * len(rules.families_with_strokes)
    for family, small, large in _ends(result, rules.families_with_strokes):
        if large is None:
            findings.append(small)
            continue
        for column, factor in parts:
            name = f"{family}, {column.replace('_', ' ')} at λ = {_weight(large):g}"
            label = f"{factor:g} × that at {_weight(small):g}"
            rival = {label: _sample(small, column, factor)}
            findings.append(_above(name, _sample(large, column), rival, number, result, rules))
    return together(findings)


def atoms_are_finer_at_small_weights(result: StudyResult, rules: Rules) -> Finding:
    """Mean frequency of atoms, at the smallest and the largest λ of a family."""
    findings = []
    for family, small, large in _ends(result, rules.families_with_strokes):
        if large is None:
            findings.append(small)
            continue
        name = f"{family}, mean frequency at λ = {_weight(small):g}"
        rival = {f"that at {_weight(large):g}": _sample(large, FREQUENCY)}
        number = len(rules.families_with_strokes)
        findings.append(_above(name, _sample(small, FREQUENCY), rival, number, result, rules))
    return together(findings)


def filters_are_noisier(result: StudyResult, rules: Rules) -> Finding:
    """Mean frequency of WDL's encoder filters, at both ends of λ, and what it gains between them.

    Noise has a higher mean frequency than what is smooth.
    """
    ends = dict(
        (family, (small, large))
        for family, small, large in _ends(result, ["wdl", *rules.rivals_of_filters])
        if large is not None
    )
    if "wdl" not in ends:
        return Finding(Word.OPEN, "wdl: missing a second λ")
    findings = []
    parts = (
        ("the smallest λ", lambda pair: pair[0].set_index("seed")[FILTERS]),
        ("the largest λ", lambda pair: pair[1].set_index("seed")[FILTERS]),
        ("the largest λ less the smallest", lambda pair: _gain(*pair)),
    )
    for name, of in parts:
        samples = {
            family: over_seeds(of(pair), min(_epochs(models) for models in pair))
            for family, pair in ends.items()
        }
        rivals = {rival: samples.get(rival, ABSENT) for rival in rules.rivals_of_filters}
        title = f"mean frequency of WDL's filters at {name}"
        number = len(parts) * len(rivals)
        findings.append(_above(title, samples["wdl"], rivals, number, result, rules))
    return together(findings)


def _gain(small: pd.DataFrame, large: pd.DataFrame) -> pd.Series:
    """By seed."""
    return large.set_index("seed")[FILTERS] - small.set_index("seed")[FILTERS]


def _ends(
    result: StudyResult, families: list[str]
) -> Iterator[tuple[str, pd.DataFrame | Finding, pd.DataFrame | None]]:
    """Of each family its models of the smallest and of the largest λ, or what is missing."""
    summary = result.more["summary"]
    for family in families:
        models = summary[summary["family"] == family]
        weights = sorted(models["sparsity_weight"].unique())
        if len(weights) < 2:
            yield family, Finding(Word.OPEN, f"{family}: missing a second λ"), None
            continue
        small, large = (models[models["sparsity_weight"] == weights[i]] for i in (0, -1))
        yield family, small, large


def _weight(models: pd.DataFrame) -> float:
    return models["sparsity_weight"].iloc[0]


def _sample(models: pd.DataFrame, column: str, factor: float = 1.0) -> Sample:
    return over_seeds(factor * models[column], _epochs(models))


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
) -> Finding:
    least = least_epochs(result, rules)
    return above(name, ours, rivals, rules, least_epochs=least, comparisons=comparisons, unit="")


def atoms_are_gabors(result: StudyResult, rules: Rules) -> Finding:
    """Share of Gabor-like atoms, against a share that is asked for and scrambled atoms.

    Without a penalty (λ = 0) codes are not sparse, and nothing is claimed of their atoms.
    """
    summary = result.more["summary"].query("sparsity_weight > 0")
    groups = summary[summary["family"].isin(rules.families_with_strokes)].groupby(
        ["family", "sparsity_weight"]
    )
    missing = [name for name in rules.families_with_strokes if name not in set(summary["family"])]
    findings = [Finding(Word.OPEN, f"{family}: missing") for family in missing]
    for (family, weight), models in groups:
        rivals = {
            f"{rules.gabor_share:g}": Sample.fixed(rules.gabor_share),
            "scrambled atoms": _sample(models, "gabor_like_scrambled"),
        }
        name, ours = f"{family} at λ = {weight:g}", _sample(models, "gabor_like")
        number = len(rivals) * (len(groups) + len(missing))
        findings.append(_above(name, ours, rivals, number, result, rules))
    return together(findings)
