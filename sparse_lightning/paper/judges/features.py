"""What atoms look like."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_lightning.paper.judges.evidence import (
    ends_of_weights,
    least_epochs,
    of_models,
    weight_of,
    with_penalty,
)
from sparse_lightning.paper.statistics import Rules, Sample
from sparse_lightning.paper.verdicts import Finding, Word, above, together
from sparse_lightning.studies.study_result import StudyResult

FREQUENCY = "median_mean_frequency"


def atoms_grow(result: StudyResult, rules: Rules) -> Finding:
    """Extent and likeness to images of atoms, at the ends of a family's λ."""
    ends, findings = ends_of_weights(result, rules, rules.families_with_strokes)
    parts = (("mean_extent", rules.growth), ("median_likeness", 1.0))
    for column, factor in parts:
        samples = {
            family: (of_models(large, column), of_models(small, column, factor))
            for family, (small, large) in ends.items()
        }
        judged = [sample for pair in samples.values() for sample in pair]
        for family, (ours, theirs) in samples.items():
            small, large = map(weight_of, ends[family])
            name = f"{family}, {column.replace('_', ' ')} at λ = {large:g}"
            rival = {f"{factor:g} × that at {small:g}": theirs}
            number = len(parts) * len(rules.families_with_strokes)
            findings.append(_above(name, ours, rival, number, result, rules, judged))
    return together(findings)


def atoms_are_finer_at_small_weights(result: StudyResult, rules: Rules) -> Finding:
    """Mean frequency of atoms, at the ends of a family's λ."""
    ends, findings = ends_of_weights(result, rules, rules.families_with_strokes)
    samples = {
        family: [of_models(models, FREQUENCY) for models in pair] for family, pair in ends.items()
    }
    judged = [sample for pair in samples.values() for sample in pair]
    for family, (ours, theirs) in samples.items():
        small, large = map(weight_of, ends[family])
        name, rival = f"{family}, mean frequency at λ = {small:g}", {f"that at {large:g}": theirs}
        number = len(rules.families_with_strokes)
        findings.append(_above(name, ours, rival, number, result, rules, judged))
    return together(findings)


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
    summary = with_penalty(result)
    if "gabor_like" not in summary:
        return Finding(Word.OPEN, "no Gabor functions were fitted: set study.compute.gabors=true")
    groups = summary[summary["family"].isin(rules.families_with_strokes)].groupby(
        ["family", "sparsity_weight"]
    )
    samples = {
        key: [of_models(models, column) for column in ("gabor_like", "gabor_like_scrambled")]
        for key, models in groups
    }
    judged = [sample for pair in samples.values() for sample in pair]
    _, findings = ends_of_weights(result, rules, rules.families_with_strokes)
    comparisons = 2 * (len(groups) + len(findings))
    for (family, weight), (ours, scrambled) in samples.items():
        asked = Sample.fixed(rules.gabor_share)
        rivals = {f"{rules.gabor_share:g}": asked, "scrambled atoms": scrambled}
        name = f"{family} at λ = {weight:g}"
        findings.append(_above(name, ours, rivals, comparisons, result, rules, judged))
    return together(findings)
